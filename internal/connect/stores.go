package connect

import (
	"context"
	"fmt"

	"transship/config"
	"transship/internal/objectstore"
)

// Stores makes a client for the object store under each backend of the configuration that has one, within its bandwidth and requests. Nothing is asked
// of the stores yet.
func Stores(ctx context.Context, c *config.Config) (map[string]objectstore.Store, error) {
	stores := map[string]objectstore.Store{}
	for name, b := range c.Backends {
		if !b.Store.Set() {
			continue
		}
		store, err := openStore(ctx, "backends."+name+".store", b.Store)
		if err != nil {
			return nil, err
		}
		if b.Store.Bandwidth > 0 || b.Store.Requests > 0 {
			store = objectstore.Throttled(store, objectstore.NewLimits(b.Store.Bandwidth, b.Store.Requests))
		}
		stores[name] = store
	}
	return stores, nil
}

func openStore(ctx context.Context, key string, s config.Store) (store objectstore.Store, err error) {
	secret := func(field string, from config.Secret) string {
		value, failed := from.Value()
		if failed != nil && err == nil {
			err = fmt.Errorf("%s: %w", field, failed)
		}
		return value
	}
	switch s.Kind {
	case "swift":
		o := objectstore.SwiftOptions{AuthURL: s.AuthURL, Username: s.Username, Password: secret("password", s.Password), Project: s.Project,
			Domain: s.Domain, Region: s.Region, Container: s.Container, Root: s.Root, CAFile: s.CAFile}
		if err == nil {
			store, err = objectstore.NewSwift(ctx, o)
		}
	case "s3":
		o := objectstore.S3Options{Endpoint: s.Endpoint, Region: s.Region, Bucket: s.Bucket, Root: s.Root, CAFile: s.CAFile,
			AccessKey: secret("access_key", s.AccessKey), SecretKey: secret("secret_key", s.SecretKey)}
		if err == nil {
			store, err = objectstore.NewS3(ctx, o)
		}
	case "filesystem":
		store, err = objectstore.NewFilesystem(objectstore.FilesystemOptions{Path: s.Path, Root: s.Root})
	default:
		err = fmt.Errorf("%s.kind: %q is no kind of store", key, s.Kind)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return store, nil
}
