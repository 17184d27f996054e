package servers

import (
	"context"
	"fmt"
	"path/filepath"
)

// Redis is what registries keep blob descriptors in.
type Redis struct {
	Address string
	*Process
}

// StartRedis starts an empty Redis that writes nothing to disk. It ends with Stop.
func StartRedis(ctx context.Context, dir string) (*Redis, error) {
	if err := present(map[string]string{"redis-server": "redis-server"}); err != nil {
		return nil, err
	}
	free, err := FreePorts(1)
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	r := &Redis{Address: free[0], Process: &Process{
		Name: "redis", Args: []string{"redis-server", "--bind", "127.0.0.1", "--port", port(free[0]), "--save", "", "--dir", dir},
		Log: filepath.Join(dir, "redis.log"), Ready: Answers(free[0]),
	}}
	return r, r.Start(ctx)
}
