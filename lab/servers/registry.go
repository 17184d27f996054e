package servers

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
)

// RegistryOptions say what a registry stores in, and where it listens. Without Swift and Ceph it is the folder dir/name.
type RegistryOptions struct {
	Swift     *Swift
	Container string
	Ceph      *Ceph
	Bucket    string
	// Cached has the registry remember where blobs are and how large, as most sites have it. Otherwise it asks the store for that several times with each read, and what is
	// damaged shows at once.
	Cached bool
	// Address is host:port; empty is a free one.
	Address string
	// Metrics is where Prometheus may ask, host:port; empty is nowhere.
	Metrics string
}

// Registry is a Docker Distribution.
type Registry struct {
	URL string
	*Process
}

// PrepareRegistry writes the configuration of a registry below dir. All of them share http.secret, as instances behind one edge must.
func PrepareRegistry(dir, name string, o RegistryOptions) (*Registry, error) {
	if err := present(map[string]string{"docker-registry": "docker-registry"}); err != nil {
		return nil, err
	}
	if o.Address == "" {
		free, err := FreePorts(1)
		if err != nil {
			return nil, err
		}
		o.Address = free[0]
	}
	metrics := ""
	if o.Metrics != "" {
		metrics = fmt.Sprintf(", debug: {addr: %q, prometheus: {enabled: true, path: /metrics}}", o.Metrics)
	}
	cache := ""
	if o.Cached {
		cache = "\n  cache: {blobdescriptor: inmemory}"
	}
	config := fmt.Sprintf(`version: 0.1
log: {level: error}
storage:
  %s%s
  delete: {enabled: true}
  redirect: {disable: true}
http: {addr: %q, relativeurls: true, secret: lab%s}
`, o.storage(filepath.Join(dir, name)), cache, o.Address, metrics)
	if err := makeDirs(dir, "log"); err != nil {
		return nil, fmt.Errorf("registry %s: %w", name, err)
	}
	if err := writeFiles(dir, map[string]string{name + ".yml": config}); err != nil {
		return nil, fmt.Errorf("registry %s: %w", name, err)
	}
	return &Registry{URL: "http://" + o.Address, Process: &Process{
		Name: "registry-" + name, Args: []string{"docker-registry", "serve", filepath.Join(dir, name+".yml")},
		Log: filepath.Join(dir, "log", "registry-"+name+".log"), Ready: Answers(o.Address),
	}}, nil
}

// StartRegistry starts a registry. It ends with Stop.
func StartRegistry(ctx context.Context, dir, name string, o RegistryOptions) (*Registry, error) {
	r, err := PrepareRegistry(dir, name, o)
	if err != nil {
		return nil, err
	}
	return r, r.Start(ctx)
}

func (o RegistryOptions) storage(folder string) string {
	switch {
	case o.Swift != nil:
		return fmt.Sprintf("swift: {authurl: %q, username: %q, password: %q, container: %q, chunksize: 5242880}", o.Swift.AuthURL, o.Swift.Username, o.Swift.Password, o.Container)
	case o.Ceph != nil:
		return fmt.Sprintf("s3: {regionendpoint: %q, region: %q, accesskey: %q, secretkey: %q, bucket: %q, secure: %t, v4auth: true, rootdirectory: /}",
			o.Ceph.Endpoint, o.Ceph.Region, o.Ceph.AccessKey, o.Ceph.SecretKey, o.Bucket, strings.HasPrefix(o.Ceph.Endpoint, "https:"))
	default:
		return fmt.Sprintf("filesystem: {rootdirectory: %q}", folder)
	}
}
