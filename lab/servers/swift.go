package servers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"time"
)

// The one account of the lab's Swift. It guards nothing but loopback ports.
const (
	swiftUser     = "registry:registry"
	swiftPassword = "secret"
	swiftAccount  = "AUTH_registry"
)

// Swift is a running Swift with one device and one copy of everything: proxy, account, container and object servers, an object updater and memcached.
type Swift struct {
	AuthURL  string `json:"auth_url"`
	Username string `json:"username"`
	Password string `json:"password"`
	// Dir takes configuration, rings, data and logs. What is stored lies in srv/d1 below it.
	Dir string `json:"dir"`

	// The processes are nil when another process runs this Swift.
	Memcached, Account, ContainerServer, Object, Updater, Proxy *Process `json:"-"`
	Group                                                       `json:"-"`
}

// StartSwift brings up a Swift below dir.
func StartSwift(ctx context.Context, dir string) (*Swift, error) {
	packages := map[string]string{"memcached": "memcached", python: "python3"}
	for _, kind := range []string{"account", "container", "object", "proxy"} {
		packages["swift-"+kind+"-server"] = "swift-" + kind
	}
	packages["swift-object-updater"] = "swift-object"
	if err := present(packages); err != nil {
		return nil, err
	}
	s := &Swift{Username: swiftUser, Password: swiftPassword, Dir: dir}
	if err := s.start(ctx); err != nil {
		s.Stop()
		return nil, fmt.Errorf("start Swift: %w", err)
	}
	return s, nil
}

func (s *Swift) start(ctx context.Context) error {
	addresses, err := FreePorts(5)
	if err != nil {
		return err
	}
	if err := s.configure(ctx, addresses); err != nil {
		return err
	}
	proxy, memcached := addresses[3], addresses[4]
	s.AuthURL = "http://" + proxy + "/auth/v1.0"
	s.Memcached = s.process("memcached", Answers(memcached), "memcached", "-u", me(), "-l", "127.0.0.1", "-p", port(memcached), "-m", "64")
	s.Account = s.daemon("account-server", "account.conf", Answers(addresses[0]))
	s.ContainerServer = s.daemon("container-server", "container.conf", Answers(addresses[1]))
	s.Object = s.daemon("object-server", "object.conf", Answers(addresses[2]))
	s.Updater = s.daemon("object-updater", "object.conf", nil)
	s.Proxy = s.daemon("proxy-server", "proxy.conf", AnswersHTTP("http://"+proxy+"/healthcheck"))
	if err := s.Group.Start(ctx, s.Memcached, s.Account, s.ContainerServer, s.Object, s.Proxy); err != nil {
		return err
	}
	return s.Group.Start(ctx, s.Updater)
}

func (s *Swift) process(name string, ready func(context.Context) error, args ...string) *Process {
	return &Process{Name: "swift-" + name, Args: args, Log: filepath.Join(s.Dir, "log", "swift-"+name+".log"), Ready: ready}
}

// daemon runs one of Swift's own programs by way of a few lines that point it to our swift.conf.
func (s *Swift) daemon(name, config string, ready func(context.Context) error) *Process {
	etc := filepath.Join(s.Dir, "etc")
	return s.process(name, ready, python, filepath.Join(etc, "run.py"), etc, "swift-"+name, filepath.Join(etc, config), "-v")
}

// CreateContainer makes a container. It waits a little for a part of Swift that was just started.
func (s *Swift) CreateContainer(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	resp, err := request(ctx, http.MethodGet, s.AuthURL, map[string]string{"X-Auth-User": s.Username, "X-Auth-Key": s.Password})
	if err != nil {
		return fmt.Errorf("log in to Swift: %w", err)
	}
	storage, token := resp.Get("X-Storage-Url"), resp.Get("X-Auth-Token")
	for {
		_, err = request(ctx, http.MethodPut, storage+"/"+name, map[string]string{"X-Auth-Token": token})
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || !errors.Is(err, errBusy) {
			return fmt.Errorf("create container %s: %w", name, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// errBusy is an answer of 500 and more: a service that is about to come up, or to give up.
var errBusy = errors.New("the service is not ready")

// request sends a request without a body, and returns the header of the answer.
func request(ctx context.Context, method, url string, header map[string]string) (http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, err
	}
	for key, value := range header {
		req.Header.Set(key, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= http.StatusBadRequest {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
		err := fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, body)
		if resp.StatusCode >= http.StatusInternalServerError {
			err = fmt.Errorf("%w: %w", errBusy, err)
		}
		return nil, err
	}
	return resp.Header, nil
}
