package gate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"transship/internal/distribution"
	"transship/internal/journal"
	"transship/internal/routing"
)

// lender pushes a manifest to the backend that serves since a flip. What that lacks, the other one may have: a blob that the client had found there just before, and
// that no image refers to yet or any more; or one whose upload nobody had announced, because it began before its prefix was watched and outlasted the cutover. It is
// carried over, and the manifest is pushed again.
type lender struct {
	*Gate
	prefix              routing.Prefix
	backend, repository string
	raw                 []byte
	needs               distribution.Manifest
}

// RoundTrip implements http.RoundTripper.
func (l *lender) RoundTrip(req *http.Request) (*http.Response, error) {
	push := func() (*http.Response, error) {
		again := req.Clone(req.Context())
		again.Body = io.NopCloser(bytes.NewReader(l.raw))
		return l.transport.RoundTrip(again)
	}
	resp, err := push()
	if err != nil {
		return nil, err
	}
	lacks, err := saysItLacks(resp)
	if err != nil || !lacks {
		return resp, err
	}
	from, missing, err := l.missing(req)
	if err != nil {
		l.log.Warn("what a manifest needs", "repository", l.repository, "error", err)
	}
	if len(missing) == 0 {
		return resp, nil
	}
	resp.Body.Close()
	if err := l.carry(req.Context(), l.prefix, from, missing...); err != nil {
		return nil, err
	}
	return push()
}

// saysItLacks reports whether a registry refused a manifest because it lacks something that the manifest refers to. The answer can still be read.
// Codes: https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#error-codes; a manifest that an index refers to is called a blob, or a manifest.
func saysItLacks(resp *http.Response) (bool, error) {
	if resp.StatusCode != http.StatusNotFound && resp.StatusCode != http.StatusBadRequest {
		return false, nil
	}
	const most = 1 << 20
	raw, err := io.ReadAll(io.LimitReader(resp.Body, most))
	if err != nil {
		return false, fmt.Errorf("read the answer to a manifest: %w", err)
	}
	resp.Body = unread(raw, resp.Body)
	var answer transport.Error
	if json.Unmarshal(raw, &answer) != nil {
		return false, nil
	}
	return slices.ContainsFunc(answer.Errors, func(d transport.Diagnostic) bool {
		return d.Code == transport.ManifestBlobUnknownErrorCode || d.Code == transport.BlobUnknownErrorCode || d.Code == transport.ManifestUnknownErrorCode
	}), nil
}

// missing is what the manifest refers to, its backend lacks, and the other backend has.
func (l *lender) missing(req *http.Request) (from string, changes []journal.Change, err error) {
	rule, known := l.Rule(l.prefix)
	if !known || rule.Backend != l.backend || !rule.mayLack(l.repository) || l.Backends[rule.Other] == nil {
		return "", nil, nil
	}
	from = rule.Other
	look := func(kind journal.Kind, path string, needed []distribution.Reference) {
		for _, n := range needed {
			here, errHere := l.has(req, l.backend, path, n)
			there, errThere := l.has(req, from, path, n)
			err = errors.Join(err, errHere, errThere)
			if errHere == nil && errThere == nil && !here && there {
				changes = append(changes, journal.Change{Kind: kind, Repository: l.repository, Reference: string(n.Digest)})
			}
		}
	}
	look(journal.Blob, "blobs", l.needs.Blobs)
	if rule.Fallback == routing.Digests {
		look(journal.Manifest, "manifests", l.needs.Manifests)
	}
	return from, changes, err
}

// has asks a backend, in the name of the client, whether it has something.
func (l *lender) has(push *http.Request, backend, path string, what distribution.Reference) (bool, error) {
	ctx, cancel := context.WithTimeout(push.Context(), patience)
	defer cancel()
	at := *l.Backends[backend]
	at.Path = "/v2/" + l.repository + "/" + path + "/" + string(what.Digest)
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, at.String(), nil)
	if err != nil {
		return false, err
	}
	req.Host = push.Host
	for _, h := range []string{"Authorization", "X-Forwarded-Proto"} {
		req.Header[h] = push.Header[h]
	}
	req.Header.Set("Accept", distribution.Accept)
	resp, err := l.transport.RoundTrip(req)
	if err != nil {
		return false, err
	}
	resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK, http.StatusTemporaryRedirect, http.StatusFound, http.StatusMovedPermanently, http.StatusPermanentRedirect, http.StatusSeeOther:
		return true, nil
	case http.StatusNotFound:
		return false, nil
	}
	return false, fmt.Errorf("HEAD %s of %s: %s", what.Digest, backend, resp.Status)
}
