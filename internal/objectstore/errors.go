package objectstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"time"
)

// StatusError is a store's answer that refuses a request, after all attempts.
type StatusError struct {
	// Op is what was asked: list, stat, get, put, delete, segments or authenticate.
	Op string
	// Store and Key are what it was asked of; Key is a prefix for listings.
	Store, Key string
	// Status is that of HTTP.
	Status int
	// Code is S3's name for the error, such as NoSuchBucket; empty for Swift. Message is what the store wrote, shortened.
	Code, Message string
	// RetryAfter is how long the store asks us to wait; 0 when it does not.
	RetryAfter time.Duration
}

func (e *StatusError) Error() string {
	s := fmt.Sprintf("%s of %q in %s: %d %s", e.Op, e.Key, e.Store, e.Status, http.StatusText(e.Status))
	if e.Code != "" {
		s += " " + e.Code
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// temporary reports whether the store may answer otherwise soon.
func (e *StatusError) temporary() bool {
	switch e.Code {
	case "RequestTimeout", "RequestTimeTooSkewed", "OperationAborted", "ConcurrentModification", "SlowDown":
		return true
	}
	switch e.Status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests, 498: // 498 is Swift's rate limit
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return false
	}
	return e.Status >= 500
}

// SizeError says that a body ended before the size that was announced for it, or went on after it.
type SizeError struct {
	Key       string
	Announced int64
	// Read is how many bytes came; of a body that went on, one more than announced.
	Read int64
}

func (e *SizeError) Error() string {
	if e.Read > e.Announced {
		return fmt.Sprintf("%s: more than the announced %d bytes came", e.Key, e.Announced)
	}
	return fmt.Sprintf("%s: %d bytes came, announced were %d", e.Key, e.Read, e.Announced)
}

// BodyError says that what was to be stored could not be read; the store is not to blame.
type BodyError struct {
	Key string
	Err error
}

func (e *BodyError) Error() string {
	return fmt.Sprintf("reading what to store as %s: %v", e.Key, e.Err)
}
func (e *BodyError) Unwrap() error { return e.Err }

// IsFinal reports whether trying again does not help before somebody changes something: bad credentials, no permission, no such container or
// bucket, a certificate that does not fit, a request that the store does not understand. ErrNotExist is not final in this sense.
func IsFinal(err error) bool {
	var status *StatusError
	var certificate *tls.CertificateVerificationError
	switch {
	case err == nil || errors.Is(err, ErrNotExist) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return false
	case errors.As(err, &status):
		return !status.temporary() && status.Status != http.StatusConflict && status.Status != http.StatusPreconditionFailed && status.Code != "NoSuchUpload"
	}
	return errors.As(err, &certificate) || errors.Is(err, fs.ErrPermission) || errors.Is(err, errInvalid)
}

// errInvalid marks errors of the caller: a key with "..", an unusable option.
var errInvalid = errors.New("invalid")

// brokenError marks what happens to a connection, as opposed to what a store answers.
type brokenError struct{ err error }

func (e *brokenError) Error() string { return e.err.Error() }
func (e *brokenError) Unwrap() error { return e.err }

// temporary reports whether another attempt may go better.
func temporary(err error) bool {
	var status *StatusError
	if errors.As(err, &status) {
		return status.temporary()
	}
	var broken *brokenError
	return errors.As(err, &broken) && !IsFinal(err)
}
