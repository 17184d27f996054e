package notify

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// StatusError is an answer other than success.
type StatusError struct {
	Status int           // HTTP status code
	Body   string        // the answer's first 200 bytes
	After  time.Duration // how long to wait before the next try, as the answer asked; 0 if it did not
}

// Error holds the status and what the answer said.
func (e *StatusError) Error() string {
	text := fmt.Sprintf("answered %d %s", e.Status, http.StatusText(e.Status))
	if e.After > 0 {
		text += fmt.Sprintf(" (again in %s)", e.After)
	}
	if e.Body != "" {
		text += fmt.Sprintf(": %q", e.Body)
	}
	return text
}

// Final reports whether the same message would be refused again: the place understood it and does not want it.
func (e *StatusError) Final() bool {
	return e.Status >= 400 && e.Status < 500 && e.Status != http.StatusRequestTimeout && e.Status != http.StatusTooManyRequests ||
		e.Status >= 300 && e.Status < 400 // redirects are not followed: see post
}

// requestError is a request that could not even be made, such as one to something that is no URL.
type requestError struct{ cause error }

func (e *requestError) Error() string { return e.cause.Error() }
func (e *requestError) Unwrap() error { return e.cause }
func (e *requestError) Final() bool   { return true }

// IsFinal reports whether err is one that another try cannot cure: refusals (4xx but 408 and 429), redirects, and
// configuration that no request can be made from. A joined error, as of Fanout, is final only if all of its parts are. nil is not.
func IsFinal(err error) bool {
	if err == nil {
		return false
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, part := range joined.Unwrap() {
			if !IsFinal(part) {
				return false
			}
		}
		return len(joined.Unwrap()) > 0
	}
	if kind, ok := err.(interface{ Final() bool }); ok {
		return kind.Final()
	}
	return IsFinal(errors.Unwrap(err))
}

// RetryAfter is how long the place that answered with err asked to be left alone, and false if it did not ask. Of a joined
// error it is the first such answer.
func RetryAfter(err error) (time.Duration, bool) {
	var status *StatusError
	if errors.As(err, &status) && status.After > 0 {
		return status.After, true
	}
	return 0, false
}

// parseRetryAfter reads the header's two forms, seconds and a date, as a time from now; 0 if it has neither.
func parseRetryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseInt(value, 10, 32); err == nil && seconds > 0 {
		return time.Duration(seconds) * time.Second
	}
	if date, err := http.ParseTime(value); err == nil && date.After(now) {
		return date.Sub(now).Round(time.Second)
	}
	return 0
}
