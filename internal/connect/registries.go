package connect

import (
	"fmt"
	"log/slog"

	"transship/config"
	"transship/internal/notify"
	"transship/internal/registry"
)

// Backends makes a client for each registry of the configuration.
func Backends(c *config.Config) (map[string]*registry.Registry, error) {
	backends := map[string]*registry.Registry{}
	for name, b := range c.Backends {
		r, err := open("backends."+name, name, b.URL, b.Username, b.Password, b.CAFile)
		if err != nil {
			return nil, err
		}
		backends[name] = r
	}
	return backends, nil
}

// Edges makes a client for each proxy node, as registry clients reach it.
func Edges(c *config.Config) (map[string]*registry.Registry, error) {
	edges := map[string]*registry.Registry{}
	for name, e := range c.Edges {
		r, err := open("edges."+name, name, e.URL, e.Username, e.Password, e.CAFile)
		if err != nil {
			return nil, err
		}
		edges[name] = r
	}
	return edges, nil
}

func open(key, name, url, username string, password config.Secret, ca string) (*registry.Registry, error) {
	secret, err := password.Value()
	if err != nil {
		return nil, fmt.Errorf("%s.password: %w", key, err)
	}
	r, err := registry.New(registry.Options{Name: name, URL: url, Username: username, Password: secret, CAFile: ca})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return r, nil
}

// Senders makes what tells people, by name.
func Senders(c *config.Config, log *slog.Logger) (map[string]notify.Sender, error) {
	senders := map[string]notify.Sender{}
	for i, n := range c.Notifications {
		address, err := n.URL.Value()
		if err != nil {
			return nil, fmt.Errorf("notifications[%d].url: %w", i, err)
		}
		header := map[string]string{}
		for key, value := range n.Headers {
			if header[key], err = value.Value(); err != nil {
				return nil, fmt.Errorf("notifications[%d].headers.%s: %w", i, key, err)
			}
		}
		switch n.Kind {
		case "webhook":
			senders[n.Name] = notify.NewWebhook(n.Name, address, header, nil)
		case "slack":
			senders[n.Name] = notify.NewSlack(n.Name, address, n.Channel, nil)
		default:
			senders[n.Name] = notify.NewLog(log)
		}
	}
	return senders, nil
}
