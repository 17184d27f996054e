package main

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"transship/config"
)

func (a *app) configCommand() *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "look at the configuration"}
	var noSecrets bool
	check := &cobra.Command{
		Use:   "check",
		Short: "find every mistake in the configuration, or show what is in force",
		Long: `Reads the configuration file, the environment and the flags, and says "ok" with what is in force, or names every mistake with its
key and what to write instead. Secrets are shown as references only, but must be there, as workers need them.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return a.checkConfig(config.Secrets(!noSecrets)) },
	}
	check.Flags().BoolVar(&noSecrets, "no-secrets", false, "do not ask for the secrets: this machine runs no worker")
	c.AddCommand(check)
	return c
}

// checked is what config check found.
type checked struct {
	OK            bool             `json:"ok"`
	Path          string           `json:"path"`
	Mistakes      []config.Mistake `json:"mistakes"`
	Configuration any              `json:"configuration,omitempty"`
}

func (a *app) checkConfig(secrets config.Secrets) error {
	c, err := a.load(secrets)
	var wrong *config.Error
	if errors.As(err, &wrong) && a.output == outputJSON {
		if err := a.print(checked{Path: wrong.Path, Mistakes: wrong.Mistakes}, nil); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	inForce := plain(reflect.ValueOf(*c))
	return a.print(checked{OK: true, Path: c.Path(), Mistakes: []config.Mistake{}, Configuration: inForce}, func(w io.Writer) error {
		text, err := yaml.Marshal(inForce)
		if err != nil {
			return fmt.Errorf("show the configuration: %w", err)
		}
		_, err = fmt.Fprintf(w, "ok\n\n# in force, from %s\n%s", c.Path(), text)
		return err
	})
}

// plain turns a configuration into what its file could have said: keys as the file has them, durations in words, secrets as their references. What
// is empty is left out.
func plain(v reflect.Value) any {
	if d, ok := v.Interface().(time.Duration); ok {
		return d.String()
	}
	switch v.Kind() {
	case reflect.Struct:
		section := map[string]any{}
		for i := range v.NumField() {
			key := v.Type().Field(i).Tag.Get("mapstructure")
			if key == "" || v.Field(i).IsZero() && v.Field(i).Kind() != reflect.Bool {
				continue
			}
			section[key] = plain(v.Field(i))
		}
		return section
	case reflect.Map:
		section := map[string]any{}
		for _, key := range v.MapKeys() {
			section[key.String()] = plain(v.MapIndex(key))
		}
		return section
	case reflect.Slice:
		list := []any{}
		for i := range v.Len() {
			list = append(list, plain(v.Index(i)))
		}
		return list
	}
	return v.Interface()
}
