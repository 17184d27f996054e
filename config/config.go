// Package config loads and checks the configuration of transship: one file, the environment (TRANSSHIP_…) over it, flags over both.
// Every mistake is reported at once, each with its key and what to write instead, before anything is touched.
package config

import (
	"path/filepath"
	"time"

	"transship/internal/policy"
)

// Config is the whole configuration. example.yaml says what each key is for.
type Config struct {
	Temporal       Temporal           `mapstructure:"temporal" json:"temporal"`
	Backends       map[string]Backend `mapstructure:"backends" json:"backends"`
	DefaultBackend string             `mapstructure:"default_backend" json:"default_backend"`
	Edges          map[string]Edge    `mapstructure:"edges" json:"edges"`
	Prefixes       []Prefix           `mapstructure:"prefixes" json:"prefixes"`
	Policy         policy.Policy      `mapstructure:"policy" json:"policy"`
	Notifications  []Notification     `mapstructure:"notifications" json:"notifications"`
	Reports        string             `mapstructure:"reports" json:"reports"`
	Log            Log                `mapstructure:"log" json:"log"`

	// path is the file that was read.
	path string
}

// Path returns the file that the configuration was read from.
func (c *Config) Path() string { return c.path }

// Temporal is the way to the Temporal server.
type Temporal struct {
	Address   string `mapstructure:"address" json:"address"`
	Namespace string `mapstructure:"namespace" json:"namespace"`
	// UI is where people open the Temporal UI; only shown, never called.
	UI     string `mapstructure:"ui" json:"ui,omitempty"`
	TLS    TLS    `mapstructure:"tls" json:"tls"`
	APIKey Secret `mapstructure:"api_key" json:"api_key"`
}

// TLS is how a connection is secured.
type TLS struct {
	Enabled    bool   `mapstructure:"enabled" json:"enabled"`
	CAFile     string `mapstructure:"ca_file" json:"ca_file,omitempty"`
	CertFile   string `mapstructure:"cert_file" json:"cert_file,omitempty"`
	KeyFile    string `mapstructure:"key_file" json:"key_file,omitempty"`
	ServerName string `mapstructure:"server_name" json:"server_name,omitempty"`
}

// Backend is a registry, as transship and as nginx reach it.
type Backend struct {
	URL      string `mapstructure:"url" json:"url"`
	Upstream string `mapstructure:"upstream" json:"upstream,omitempty"`
	Username string `mapstructure:"username" json:"username,omitempty"`
	Password Secret `mapstructure:"password" json:"password"`
	CAFile   string `mapstructure:"ca_file" json:"ca_file,omitempty"`
	// Store is the object store under the registry, where we may reach it. Without one, images move through the registry's API.
	Store Store `mapstructure:"store" json:"store,omitzero"`
}

// Edge is one proxy node.
type Edge struct {
	URL      string `mapstructure:"url" json:"url"`
	Username string `mapstructure:"username" json:"username,omitempty"`
	Password Secret `mapstructure:"password" json:"password"`
	CAFile   string `mapstructure:"ca_file" json:"ca_file,omitempty"`
	Nginx    Nginx  `mapstructure:"nginx" json:"nginx"`
	Gate     string `mapstructure:"gate" json:"gate"`
	Journal  string `mapstructure:"journal" json:"journal"`
	Traffic  string `mapstructure:"traffic" json:"traffic"`
	// Fallbacks is where nginx logs reads that a second backend answered.
	Fallbacks string `mapstructure:"fallbacks" json:"fallbacks"`
	State     string `mapstructure:"state" json:"state"`
}

// Nginx is how the edge worker handles its nginx.
type Nginx struct {
	Directory     string   `mapstructure:"directory" json:"directory"`
	TestCommand   []string `mapstructure:"test_command" json:"test_command"`
	ReloadCommand []string `mapstructure:"reload_command" json:"reload_command"`
	StatusURL     string   `mapstructure:"status_url" json:"status_url"`
	// Reads is the loopback address where nginx reads from a second backend what the first does not have.
	Reads string `mapstructure:"reads" json:"reads"`
}

// Prefix is a prefix that may be migrated, and what is particular to it.
type Prefix struct {
	Prefix string `mapstructure:"prefix" json:"prefix"`
	From   string `mapstructure:"from" json:"from"`
	To     string `mapstructure:"to" json:"to"`
	// Repositories names the repositories of the prefix where the registry has no catalog; empty asks the catalog.
	Repositories []string `mapstructure:"repositories" json:"repositories,omitempty"`
	// Probe is the repository that probes push to; empty is PREFIX/transship-probe.
	Probe string `mapstructure:"probe" json:"probe,omitempty"`
}

// Notification is one place where people are told.
type Notification struct {
	Name    string            `mapstructure:"name" json:"name"`
	Kind    string            `mapstructure:"kind" json:"kind"`
	URL     Secret            `mapstructure:"url" json:"url"`
	Channel string            `mapstructure:"channel" json:"channel,omitempty"`
	Headers map[string]Secret `mapstructure:"headers" json:"headers,omitempty"`
}

// Log is how the programs log.
type Log struct {
	Level  string `mapstructure:"level" json:"level"`
	Format string `mapstructure:"format" json:"format"`
}

// Default is what is used where the file says nothing.
func Default() Config {
	return Config{
		Temporal: Temporal{Address: "127.0.0.1:7233", Namespace: "transship"},
		Policy:   policy.Default(),
		Log:      Log{Level: "info", Format: "text"},
	}
}

// edgeDefaults fills what is the same on most nodes.
func (e *Edge) edgeDefaults(name string) {
	fill := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	fill(&e.Gate, "127.0.0.1:9099")
	fill(&e.Journal, "/var/log/nginx/transship_journal.log")
	fill(&e.Traffic, "/var/log/nginx/transship_traffic.log")
	fill(&e.Fallbacks, filepath.Join(filepath.Dir(e.Journal), "transship_fallbacks.log"))
	fill(&e.Nginx.Reads, "127.0.0.1:9098")
	fill(&e.State, "/var/lib/transship/"+name+".json")
	fill(&e.Nginx.Directory, "/etc/nginx/transship")
	if len(e.Nginx.TestCommand) == 0 {
		e.Nginx.TestCommand = []string{"nginx", "-t"}
	}
	if len(e.Nginx.ReloadCommand) == 0 {
		e.Nginx.ReloadCommand = []string{"nginx", "-s", "reload"}
	}
	if e.URL != "" {
		fill(&e.Nginx.StatusURL, e.URL+"/_transship/generation")
	}
}

// RefusedFor is what clients are told to wait when their write is refused.
const RefusedFor = 3 * time.Second
