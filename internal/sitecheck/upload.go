package sitecheck

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"transship/internal/registry"
)

// uploads is how often an upload is tried: where two instances take turns, one try may by chance meet the same twice.
const uploads = 2

// chunks is into how many parts an upload is cut, each on a connection of its own.
const chunks = 3

// instances checks that an upload can go on at another of the instances behind one address.
func instances(ctx context.Context, p place, repository string) Finding {
	return onward(ctx, p.String()+": an upload goes on whichever instance gets its next part", p, p, uploads, repository)
}

// hops checks that an upload that began at one proxy node can go on through each of the others.
func hops(ctx context.Context, begin place, through []place, repository string) (findings []Finding) {
	for _, other := range through {
		if begin != other {
			what := fmt.Sprintf("an upload begun through %s goes on through %s and back", begin, other)
			findings = append(findings, onward(ctx, what, begin, other, 1, repository))
		}
	}
	return findings
}

func onward(ctx context.Context, what string, begin, other place, tries int, repository string) Finding {
	for range tries {
		digest, err := upload(ctx, begin, other, repository)
		var out *astrayError
		var stuck *stuckError
		switch {
		case errors.As(err, &out):
			return bad(what, err.Error(), "let the registry answer with relative addresses (http.relativeurls: true), or set http.host to an address that clients reach; see that the proxy passes Host on")
		case errors.As(err, &stuck):
			return bad(what, err.Error(), stuck.cure())
		case err != nil:
			return unknown(what, err)
		}
		remove(ctx, begin, repository, digest)
	}
	return well(what)
}

// astrayError says that an upload was sent where nobody is.
type astrayError struct{ err error }

func (e *astrayError) Error() string {
	return "the Location of an upload leads nowhere: " + e.err.Error()
}
func (e *astrayError) Unwrap() error { return e.err }

// stuckError says that an upload began and could not go on.
type stuckError struct{ err error }

func (e *stuckError) Error() string { return "an upload began and could not go on: " + e.err.Error() }
func (e *stuckError) Unwrap() error { return e.err }

func (e *stuckError) cure() string {
	var answered *registry.Error
	if errors.As(e.err, &answered) {
		codes := strings.Join(answered.Codes, " ")
		switch {
		case strings.Contains(codes, "BLOB_UPLOAD_INVALID"):
			return "give all instances the same http.secret: each signs the state of an upload with its own"
		case strings.Contains(codes, "BLOB_UPLOAD_UNKNOWN"):
			return "let all instances have one store, and pass the requests of one client to them only"
		}
	}
	return "send POST, PATCH and PUT of one upload on connections of their own, as this check does, and mend what refuses them"
}

// upload begins at one place, sends every second chunk through the other, and ends where it began.
func upload(ctx context.Context, begin, other place, repository string) (v1.Hash, error) {
	q := registry.Exchange{Doing: "beginning an upload", Method: http.MethodPost, URL: &url.URL{Path: "/v2/" + repository + "/blobs/uploads/"}, Repository: repository}
	a, err := begin.Exchange(ctx, q)
	if err == nil {
		err = begin.Refused(ctx, q, a, http.StatusAccepted)
	}
	if err != nil {
		return v1.Hash{}, err
	}
	sum := sha256.New()
	sent, at := 0, begin
	for i := range chunks {
		next := begin
		if i%2 == 0 {
			next = other
		}
		chunk := content()
		sum.Write(chunk)
		q := registry.Exchange{Doing: fmt.Sprintf("sending chunk %d of an upload", i+1), Method: http.MethodPatch, Repository: repository, Body: chunk, Header: map[string]string{
			"Content-Type": "application/octet-stream", "Content-Range": fmt.Sprintf("%d-%d", sent, sent+len(chunk)-1),
		}}
		if a, err = goOn(ctx, at, next, q, a, nil, http.StatusAccepted, http.StatusNoContent); err != nil {
			return v1.Hash{}, err
		}
		sent, at = sent+len(chunk), next
	}
	digest := v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}
	q = registry.Exchange{Doing: "ending an upload", Method: http.MethodPut, Repository: repository, Header: map[string]string{"Content-Type": "application/octet-stream"}}
	_, err = goOn(ctx, at, begin, q, a, url.Values{"digest": {digest.String()}}, http.StatusCreated, http.StatusNoContent)
	return digest, err
}

// goOn sends a request to where the answer before it says, through another place if that is not the one that gave the answer.
func goOn(ctx context.Context, from, to place, q registry.Exchange, before registry.Answer, more url.Values, want ...int) (registry.Answer, error) {
	next := before.Location()
	if next == nil {
		return registry.Answer{}, &astrayError{errors.New("there is none")}
	}
	if next.Host != before.URL.Host {
		if err := reach(ctx, next); err != nil {
			return registry.Answer{}, &astrayError{err}
		}
	}
	if from != to {
		next.Scheme, next.Host = "", ""
	}
	query := next.Query()
	for k, v := range more {
		query[k] = v
	}
	next.RawQuery = query.Encode()
	q.URL = next
	a, err := to.Exchange(ctx, q)
	if err == nil {
		err = to.Refused(ctx, q, a, want...)
	}
	if refused(err) {
		return registry.Answer{}, &stuckError{err}
	}
	return a, err
}

// refused tells an answer that would be the same the next time from silence, and from one that asks to come again: a prefix that is held just now waits or
// is refused.
func refused(err error) bool {
	var answered *registry.Error
	if !errors.As(err, &answered) {
		return false
	}
	switch answered.Status {
	case 0, http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return false
	}
	return true
}
