// Package connect opens the connections that the configuration describes. It is what the command line and the workers share.
package connect

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"time"

	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
	"google.golang.org/grpc"

	"transship/config"
)

// Patience is what to do when the Temporal server does not answer at once.
type Patience bool

const (
	// Patiently tries again until ctx ends: a worker outlives its server's restarts.
	Patiently Patience = true
	// Once fails: a person is waiting.
	Once Patience = false
)

// Temporal connects to the Temporal server.
func Temporal(ctx context.Context, c config.Temporal, log *slog.Logger, patience Patience) (client.Client, error) {
	options := client.Options{HostPort: c.Address, Namespace: c.Namespace, Logger: sdklog.NewStructuredLogger(log)}
	// A resolver that swallows the query for a service configuration (TXT _grpc_config) would hold up every connection, and nobody publishes one.
	options.ConnectionOptions.DialOptions = []grpc.DialOption{grpc.WithDisableServiceConfig()}
	key, err := c.APIKey.Value()
	if err != nil {
		return nil, fmt.Errorf("temporal.api_key: %w", err)
	}
	if key != "" {
		options.Credentials = client.NewAPIKeyStaticCredentials(key)
	}
	if options.ConnectionOptions.TLS, err = transport(c.TLS); err != nil {
		return nil, err
	}
	for {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		connected, err := client.DialContext(attempt, options)
		cancel()
		if err == nil {
			return connected, nil
		}
		err = fmt.Errorf("Temporal does not answer at %s: %w: start it, or set temporal.address (flag --temporal-address, environment TRANSSHIP_TEMPORAL_ADDRESS)", c.Address, err)
		if patience == Once {
			return nil, err
		}
		log.Warn("waiting for Temporal", "error", err)
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(time.Second):
		}
	}
}

func transport(c config.TLS) (*tls.Config, error) {
	if !c.Enabled && c.CertFile == "" && c.CAFile == "" {
		return nil, nil
	}
	t := &tls.Config{ServerName: c.ServerName, MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("temporal.tls.ca_file: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("temporal.tls.ca_file: %s holds no certificate", c.CAFile)
		}
	}
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("temporal.tls.cert_file: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}
