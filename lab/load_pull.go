package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// puller gets what a path names.
type puller interface {
	get(ctx context.Context, path string) (*http.Response, error)
}

func (l *Load) get(ctx context.Context, path string) (*http.Response, error) {
	return l.do(ctx, http.MethodGet, path, map[string]string{"Accept": manifestType}, nil, 0)
}

// pullFrom pulls a manifest and everything that it refers to.
func pullFrom(ctx context.Context, from puller, repository, reference string) (digest string, err error) {
	resp, err := from.get(ctx, "/v2/"+repository+"/manifests/"+reference)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", &Failure{Method: http.MethodGet, Path: reference, Said: err.Error()}
	}
	digest = sum(raw)
	if want := resp.Header.Get("Docker-Content-Digest"); want != digest || strings.HasPrefix(reference, "sha256:") && reference != digest {
		return digest, fmt.Errorf("%s:%s is called %s and hashes to %s", repository, reference, want, digest)
	}
	type descriptor struct{ Digest string }
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	if err := json.Unmarshal(raw, &manifest); err != nil {
		return digest, fmt.Errorf("%s:%s: %w", repository, reference, err)
	}
	for _, b := range append(manifest.Layers, manifest.Config) {
		if err := pullBlob(ctx, from, repository, b.Digest); err != nil {
			return digest, err
		}
	}
	return digest, nil
}

func pullBlob(ctx context.Context, from puller, repository, digest string) error {
	path := "/v2/" + repository + "/blobs/" + digest
	resp, err := from.get(ctx, path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	h := sha256.New()
	if _, err := io.Copy(h, resp.Body); err != nil {
		return &Failure{Edge: "http://" + resp.Request.URL.Host, Method: http.MethodGet, Path: path, Said: err.Error()}
	}
	if got := "sha256:" + hex.EncodeToString(h.Sum(nil)); got != digest {
		return fmt.Errorf("%s hashes to %s", path, got)
	}
	return nil
}
