package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	temporallog "go.temporal.io/sdk/log"
)

// readyInfo is the content of the ready file.
type readyInfo struct {
	Address   string `json:"address"` // HOST:PORT of the frontend
	UI        string `json:"ui"`      // URL of the web UI
	Namespace string `json:"namespace"`
	PID       int    `json:"pid"`
}

// awaitReady returns when a client finds everything working: frontend, history shard, visibility with all search attributes,
// and the UI's own way to the frontend.
func awaitReady(ctx context.Context, at ports, want namespaceSpec, logger *slog.Logger) error {
	temporal, err := client.NewLazyClient(client.Options{
		HostPort:  reach(at.frontend),
		Namespace: want.Name,
		Logger:    temporallog.NewStructuredLogger(logger),
	})
	if err != nil {
		return fmt.Errorf("make a client of %s: %w", at.frontend, err)
	}
	defer temporal.Close()
	err = retry(ctx, "ask the frontend's health", func(ctx context.Context) error {
		_, err := temporal.CheckHealth(ctx, &client.CheckHealthRequest{})
		return err
	})
	if err != nil {
		return err
	}
	err = retry(ctx, "ask the history service for a workflow", func(ctx context.Context) error {
		_, err := temporal.DescribeWorkflowExecution(ctx, "transship-devserver-readiness", "")
		if notFound := (*serviceerror.NotFound)(nil); errors.As(err, &notFound) {
			return nil // only the service that owns the shard can know that
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := adjustNamespace(ctx, temporal, want, logger); err != nil {
		return err
	}
	for _, path := range []string{"/", "/namespaces", "/api/v1/namespaces/" + want.Name} {
		url := "http://" + reach(at.ui) + path
		if err := retry(ctx, "get the UI's "+path, func(ctx context.Context) error { return get(ctx, url) }); err != nil {
			return err
		}
	}
	return nil
}

// get wants an answer of 200 from url.
func get(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return fmt.Errorf("read %s: %w", url, err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %s", url, response.Status)
	}
	return nil
}

// retry calls ask every 50 ms until it succeeds or ctx ends; its error then holds the last answer.
func retry(ctx context.Context, what string, ask func(context.Context) error) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := ask(attempt)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w (last answer: %w)", what, ctx.Err(), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// writeReadyFile puts the file in place whole or not at all. An empty path asks for none.
func writeReadyFile(path string, info readyInfo) error {
	if path == "" {
		return nil
	}
	text, err := json.Marshal(info)
	if err != nil {
		return fmt.Errorf("encode the ready file: %w", err)
	}
	draft := fmt.Sprintf("%s.%d", path, os.Getpid())
	if err := os.WriteFile(draft, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the ready file: %w", err)
	}
	if err := os.Rename(draft, path); err != nil {
		return errors.Join(fmt.Errorf("put the ready file in place: %w", err), os.Remove(draft))
	}
	return nil
}

// removeReadyFile removes the file if there is one.
func removeReadyFile(path string) error {
	if path == "" {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the ready file: %w", err)
	}
	return nil
}
