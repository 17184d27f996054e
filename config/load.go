package config

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"transship/internal/policy"
)

// Mistake is something wrong with one key, and what to write instead.
type Mistake = policy.Mistake

// Error is every mistake in a configuration.
type Error struct {
	Path     string    `json:"path"`
	Mistakes []Mistake `json:"mistakes"`
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s has %d mistakes:", e.Path, len(e.Mistakes))
	if len(e.Mistakes) == 1 {
		b.Reset()
		fmt.Fprintf(&b, "%s has a mistake:", e.Path)
	}
	for _, m := range e.Mistakes {
		b.WriteString("\n  " + m.Error())
	}
	return b.String()
}

// Flags declares the flags that override keys of the file.
func Flags(flags *pflag.FlagSet) {
	flags.String("temporal-address", "", "address of the Temporal frontend, over temporal.address")
	flags.String("namespace", "", "Temporal namespace, over temporal.namespace")
}

var flagKeys = map[string]string{"temporal-address": "temporal.address", "namespace": "temporal.namespace"}

// Secrets says whether the secrets that a configuration refers to must be there.
type Secrets bool

const (
	// NeedSecrets is for workers, which use them.
	NeedSecrets Secrets = true
	// IgnoreSecrets is for the command line, which needs none but the key of the Temporal server.
	IgnoreSecrets Secrets = false
)

// Load reads a configuration file, the environment and the flags (which may be nil), and checks all of it. Its error is an *Error when the
// file could be read but has mistakes.
func Load(path string, flags *pflag.FlagSet, secrets Secrets) (*Config, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("configuration: %w: name the file with --config or TRANSSHIP_CONFIG; config/example.yaml is one to start from", err)
	}
	v := viper.New()
	v.SetConfigFile(path)
	if err := v.ReadInConfig(); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	// What the environment may set although neither the file nor a default names it must be known to viper.
	if err := setDefaults(v, Default()); err != nil {
		return nil, err
	}
	v.SetEnvPrefix("TRANSSHIP")
	v.SetEnvKeyReplacer(strings.NewReplacer(".", "_", "-", "_"))
	v.AutomaticEnv()
	for flag, key := range flagKeys {
		if flags == nil || flags.Lookup(flag) == nil {
			continue
		}
		if err := v.BindPFlag(key, flags.Lookup(flag)); err != nil {
			return nil, fmt.Errorf("configuration: flag %s: %w", flag, err)
		}
	}
	c := &Config{path: path}
	mistakes := decode(v.AllSettings(), c)
	for name, e := range c.Edges {
		e.edgeDefaults(name)
		c.Edges[name] = e
	}
	for name, b := range c.Backends {
		if b.Store.Set() {
			b.Store.storeDefaults()
			c.Backends[name] = b
		}
	}
	mistakes = append(mistakes, c.check(secrets)...)
	if len(mistakes) > 0 {
		slices.SortStableFunc(mistakes, func(a, b Mistake) int { return strings.Compare(a.Key, b.Key) })
		return nil, &Error{Path: path, Mistakes: mistakes}
	}
	return c, nil
}

// setDefaults tells viper every scalar key of the defaults.
func setDefaults(v *viper.Viper, c Config) error {
	settings := map[string]any{}
	if err := mapstructure.Decode(c, &settings); err != nil {
		return fmt.Errorf("configuration defaults: %w", err)
	}
	var set func(key string, value any)
	set = func(key string, value any) {
		if section, ok := value.(map[string]any); ok {
			for name, inner := range section {
				set(strings.TrimPrefix(key+"."+name, "."), inner)
			}
			return
		}
		if kind := reflect.ValueOf(value).Kind(); kind != reflect.Map && kind != reflect.Slice {
			v.SetDefault(key, value)
		}
	}
	set("", settings)
	return nil
}

// decode fills c and returns a mistake for every key that is unknown or of the wrong type.
func decode(settings map[string]any, c *Config) []Mistake {
	var meta mapstructure.Metadata
	decoder, err := mapstructure.NewDecoder(&mapstructure.DecoderConfig{
		Result: c, Metadata: &meta, WeaklyTypedInput: true,
		DecodeHook: mapstructure.ComposeDecodeHookFunc(mapstructure.StringToTimeDurationHookFunc(), refuseLiteralSecret),
	})
	if err != nil {
		return []Mistake{{Problem: err.Error()}}
	}
	var mistakes []Mistake
	for _, err := range leaves(decoder.Decode(settings)) {
		var at *mapstructure.DecodeError
		if errors.As(err, &at) {
			mistakes = append(mistakes, Mistake{Key: dotted(at.Name()), Problem: at.Unwrap().Error()})
		} else {
			mistakes = append(mistakes, Mistake{Key: "configuration", Problem: err.Error()})
		}
	}
	for _, key := range meta.Unused {
		mistakes = append(mistakes, Mistake{Key: dotted(key), Problem: "is not a known key; config/example.yaml has all of them"})
	}
	return mistakes
}

// refuseLiteralSecret explains what a secret must look like, instead of taking the secret itself.
func refuseLiteralSecret(from, to reflect.Type, data any) (any, error) {
	if to == reflect.TypeFor[Secret]() && from.Kind() != reflect.Map && from != to {
		return nil, errors.New("is a secret: write {env: NAME} or {file: PATH}, never the value itself")
	}
	return data, nil
}

// leaves takes joined errors apart.
func leaves(err error) []error {
	if err == nil {
		return nil
	}
	var at *mapstructure.DecodeError
	joined, many := err.(interface{ Unwrap() []error })
	switch {
	case many:
		var all []error
		for _, inner := range joined.Unwrap() {
			all = append(all, leaves(inner)...)
		}
		return all
	case errors.As(err, &at) && err != error(at) && errors.Unwrap(err) != nil:
		return leaves(errors.Unwrap(err))
	}
	return []error{err}
}

// dotted turns mapstructure's backends[old].url into the key as people write it.
func dotted(name string) string {
	var b strings.Builder
	for i, part := range strings.Split(name, "[") {
		inner, rest, bracketed := strings.Cut(part, "]")
		switch {
		case i == 0 || !bracketed:
			b.WriteString(part)
		case strings.Trim(inner, "0123456789") == "":
			b.WriteString("[" + inner + "]" + rest)
		default:
			b.WriteString("." + inner + rest)
		}
	}
	return strings.TrimPrefix(b.String(), ".")
}
