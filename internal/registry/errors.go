package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

var (
	// ErrNotFound: the registry has no such repository, tag, manifest or blob.
	ErrNotFound = errors.New("not found")
	// ErrUnsupported: the registry does not do this, such as deleting where deletes are disabled.
	ErrUnsupported = errors.New("not supported by the registry")

	errScheme  = errors.New("refusing to use another scheme")
	errStalled = errors.New("no byte moved for too long")
)

// Error is a request that a registry did not answer as hoped.
type Error struct {
	// Backend is the registry's name.
	Backend string
	// Doing says what was being done, and to what.
	Doing string
	// Status is the HTTP status; 0 when there was no answer.
	Status int
	// Codes are the error codes of the answer, such as MANIFEST_UNKNOWN.
	Codes []string
	// Temporary says that the same request may succeed later.
	Temporary bool
	// Err is the cause.
	Err error
}

func (e *Error) Error() string { return fmt.Sprintf("backend %s: %s: %v", e.Backend, e.Doing, e.Err) }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is makes errors.Is(err, ErrNotFound) and errors.Is(err, ErrUnsupported) work on answers of a registry.
func (e *Error) Is(target error) bool {
	switch target {
	case ErrNotFound:
		return e.Status == http.StatusNotFound
	case ErrUnsupported:
		return e.Status == http.StatusMethodNotAllowed || e.Status == http.StatusNotImplemented || e.has("UNSUPPORTED")
	}
	return false
}

func (e *Error) has(codes ...string) bool {
	for _, have := range e.Codes {
		for _, code := range codes {
			if have == code {
				return true
			}
		}
	}
	return false
}

// IsTemporary reports whether trying again later may help: the network failed, or the registry answered 408, 429 or 5xx.
// An error that says nothing about it, a bad blob, and the end of the caller's context are not temporary.
func IsTemporary(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Temporary
}

// fail wraps err with what was being done, and decides whether it is temporary. When ctx has ended, that is the cause.
func (r *Registry) fail(ctx context.Context, doing string, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, errStalled) {
		return fmt.Errorf("backend %s: %s: %w", r.name, doing, cause)
	}
	var already *Error
	if errors.As(err, &already) {
		return err
	}
	e := &Error{Backend: r.name, Doing: doing, Err: err}
	var answer *transport.Error
	if errors.As(err, &answer) {
		e.Status = answer.StatusCode
		for _, d := range answer.Errors {
			e.Codes = append(e.Codes, string(d.Code))
		}
		e.Temporary = temporaryStatus(e.Status)
		return e
	}
	e.Temporary = !permanent(err)
	return e
}

func temporaryStatus(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, 499:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return false
	}
	return status >= 500
}

// permanent tells the few failures of a request without answer that no retry cures: all of them are mistakes in configuration.
func permanent(err error) bool {
	var (
		certificate *tls.CertificateVerificationError
		authority   x509.UnknownAuthorityError
		hostname    x509.HostnameError
		record      tls.RecordHeaderError
		problem     *Problem
	)
	return errors.As(err, &certificate) || errors.As(err, &authority) || errors.As(err, &hostname) || errors.As(err, &record) ||
		errors.As(err, &problem) || errors.Is(err, errScheme) || errors.Is(err, errAnswer)
}
