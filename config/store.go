package config

import (
	"net/url"
	"path/filepath"
	"slices"
	"strings"
)

// Store is the object store under a registry: Swift, S3 (Ceph's RADOS Gateway among them), or a folder.
type Store struct {
	// Kind is swift, s3 or filesystem; empty when we do not reach the store.
	Kind string `mapstructure:"kind" json:"kind,omitempty"`
	// Root is the folder in the store that holds "blobs" and "repositories".
	Root   string `mapstructure:"root" json:"root,omitempty"`
	CAFile string `mapstructure:"ca_file" json:"ca_file,omitempty"`
	// Bandwidth in bytes per second and Requests per second bound what one worker asks of the store; 0 is unbounded.
	Bandwidth int64 `mapstructure:"bandwidth" json:"bandwidth,omitempty"`
	Requests  int   `mapstructure:"requests" json:"requests,omitempty"`

	// Of Swift.
	AuthURL   string `mapstructure:"auth_url" json:"auth_url,omitempty"`
	Username  string `mapstructure:"username" json:"username,omitempty"`
	Password  Secret `mapstructure:"password" json:"password,omitzero"`
	Container string `mapstructure:"container" json:"container,omitempty"`
	Project   string `mapstructure:"project" json:"project,omitempty"`
	Domain    string `mapstructure:"domain" json:"domain,omitempty"`

	// Of S3; Region also of Swift.
	Endpoint  string `mapstructure:"endpoint" json:"endpoint,omitempty"`
	Region    string `mapstructure:"region" json:"region,omitempty"`
	Bucket    string `mapstructure:"bucket" json:"bucket,omitempty"`
	AccessKey Secret `mapstructure:"access_key" json:"access_key,omitzero"`
	SecretKey Secret `mapstructure:"secret_key" json:"secret_key,omitzero"`

	// Of a folder: the one that holds "blobs" and "repositories".
	Path string `mapstructure:"path" json:"path,omitempty"`
}

// Set reports whether there is a store.
func (s Store) Set() bool { return s.Kind != "" }

// storeDefaults fills what Distribution's drivers use when nothing is said.
func (s *Store) storeDefaults() {
	if s.Root == "" {
		s.Root = map[string]string{"swift": "files/docker/registry/v2/", "s3": "docker/registry/v2/"}[s.Kind]
	}
	if s.Root = strings.Trim(s.Root, "/"); s.Root != "" {
		s.Root += "/"
	}
	if s.Kind == "s3" && s.Region == "" {
		s.Region = "us-east-1"
	}
}

func (c *checker) store(key string, s Store) {
	need := func(field, value string) {
		c.wrong(value == "", key+"."+field, "is missing; a store of kind %s needs it", s.Kind)
	}
	address := func(field, value string) {
		u, err := url.Parse(value)
		c.wrong(value != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil), key+"."+field, "is %q; write http://host:port/… or https://host/…, without a password", value)
	}
	credential := func(field string, secret Secret) {
		c.wrong(!secret.Set(), key+"."+field, "is missing; refer to it with {env: NAME} or {file: PATH}, it is a secret")
		c.secret(key+"."+field, secret)
	}
	c.wrong(s.Bandwidth < 0, key+".bandwidth", "is %d; write bytes per second, or 0 for no bound", s.Bandwidth)
	c.wrong(s.Requests < 0, key+".requests", "is %d; write requests per second, or 0 for no bound", s.Requests)
	c.wrong(slices.Contains(strings.Split(s.Root, "/"), ".."), key+".root", "is %q; write the folder in the store that holds blobs and repositories, without ..", s.Root)
	c.file(key+".ca_file", s.CAFile)
	switch s.Kind {
	case "":
		c.wrong(s != Store{}, key+".kind", "is missing; write swift, s3 or filesystem")
	case "swift":
		need("auth_url", s.AuthURL)
		address("auth_url", s.AuthURL)
		need("username", s.Username)
		need("container", s.Container)
		credential("password", s.Password)
	case "s3":
		need("endpoint", s.Endpoint)
		address("endpoint", s.Endpoint)
		need("bucket", s.Bucket)
		credential("access_key", s.AccessKey)
		credential("secret_key", s.SecretKey)
	case "filesystem":
		c.wrong(!filepath.IsAbs(s.Path), key+".path", "is %q; write the absolute path of the folder that holds blobs and repositories", s.Path)
	default:
		c.wrong(true, key+".kind", "is %q; write swift, s3 or filesystem", s.Kind)
	}
}
