package config

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// Secret refers to a value that the configuration itself does not hold: the environment variable or the file that does.
// Printed in any way, it shows the reference and never the value.
type Secret struct {
	Env  string `mapstructure:"env" json:"env,omitempty"`
	File string `mapstructure:"file" json:"file,omitempty"`
}

// Set reports whether the secret refers to anything.
func (s Secret) Set() bool { return s.Env != "" || s.File != "" }

// Value reads the secret. It is empty when the secret is not set; a reference that leads nowhere is an error.
func (s Secret) Value() (string, error) {
	switch {
	case s.Env != "" && s.File != "":
		return "", errors.New("has both env and file; write one of them")
	case s.Env != "":
		v, ok := os.LookupEnv(s.Env)
		if !ok {
			return "", fmt.Errorf("the environment variable %s is not set; set it, or refer to a file", s.Env)
		}
		return v, nil
	case s.File != "":
		raw, err := os.ReadFile(s.File)
		if err != nil {
			return "", fmt.Errorf("the file cannot be read: %w", err)
		}
		return strings.TrimRight(string(raw), "\r\n"), nil
	}
	return "", nil
}

func (s Secret) String() string {
	switch {
	case s.Env != "":
		return "env:" + s.Env
	case s.File != "":
		return "file:" + s.File
	}
	return ""
}
