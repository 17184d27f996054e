package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// commitLimit is how long a registry may take from the last byte of an upload to its answer. Distribution on an object store moves the
// segments of a blob then, which takes minutes for large ones.
const commitLimit = 15 * time.Minute

// PutBlob stores a blob that is in memory and returns its digest. A blob that is there already is stored again, which changes nothing.
func (r *Registry) PutBlob(ctx context.Context, repository string, content []byte) (v1.Hash, error) {
	digest, err := hashOf("sha256", content)
	if err != nil {
		return v1.Hash{}, err
	}
	wait := r.retryWait
	for try := 1; ; try++ {
		session, _, err := r.beginUpload(ctx, repository, digest, "")
		if err == nil {
			err = r.finishUpload(ctx, repository, digest, session, bytes.NewReader(content), int64(len(content)))
		}
		if err == nil {
			return digest, nil
		}
		if !IsTemporary(err) || try == tries || !sleep(ctx, jitter(wait)) {
			return v1.Hash{}, err
		}
		wait *= 3
	}
}

// beginUpload opens an upload session. With from, the name of a repository that is known to have the blob, the registry is asked to mount
// it instead; mounted tells whether it did, and then there is no session.
func (r *Registry) beginUpload(ctx context.Context, repository string, digest v1.Hash, from string) (session *url.URL, mounted bool, err error) {
	q := request{
		doing:  "beginning the upload of blob " + named(repository, digest.String()),
		method: http.MethodPost, path: "/v2/" + repository + "/blobs/uploads/", scopes: []string{pushScope(repository)},
		want: []int{http.StatusAccepted},
	}
	if from != "" {
		q.query = url.Values{"mount": {digest.String()}, "from": {from}}
		q.scopes = append(q.scopes, pullScope(from))
		q.want = append(q.want, http.StatusCreated)
	}
	a, err := r.do(ctx, q)
	if err != nil && from != "" && !IsTemporary(err) && ctx.Err() == nil {
		// Not being allowed to mount from there is no reason not to upload.
		return r.beginUpload(ctx, repository, digest, "")
	}
	if err != nil {
		return nil, false, err
	}
	if a.status == http.StatusCreated {
		return nil, true, nil
	}
	location, err := url.Parse(a.header.Get("Location"))
	if err != nil || a.header.Get("Location") == "" {
		return nil, false, r.fail(ctx, q.doing, fmt.Errorf("%w: upload accepted with Location %q", errAnswer, a.header.Get("Location")))
	}
	return a.url.ResolveReference(location), false, nil
}

// finishUpload sends the content and has it committed under its digest, in one request. content must end with io.EOF only if it is good:
// the last byte is held back until then, so that the registry never has a whole bad blob to commit.
func (r *Registry) finishUpload(ctx context.Context, repository string, digest v1.Hash, session *url.URL, content io.Reader, size int64) error {
	doing := "uploading blob " + named(repository, digest.String())
	client, err := r.client(ctx, []string{pushScope(repository)})
	if err != nil {
		return err
	}
	inner, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	body := &holdback{from: content, stall: time.AfterFunc(stallLimit, func() { cancel(errStalled) })}
	defer body.stall.Stop()

	address := *session
	query := address.Query()
	query.Set("digest", digest.String())
	address.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(inner, http.MethodPut, address.String(), body)
	if err != nil {
		return fmt.Errorf("backend %s: %s: %w", r.name, doing, err)
	}
	req.ContentLength = size
	if size == 0 {
		// With a body, a length of 0 would mean "unknown".
		if _, err := io.Copy(io.Discard, content); err != nil {
			return err
		}
		req.Body = http.NoBody
		body.stall.Reset(commitLimit)
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := client.Do(req)
	if err != nil {
		if errors.Is(context.Cause(inner), errStalled) {
			err = errStalled
		}
		return r.fail(ctx, doing, err)
	}
	defer resp.Body.Close()
	if err := transport.CheckError(resp, http.StatusCreated, http.StatusNoContent, http.StatusOK); err != nil {
		return r.uploadFailure(ctx, doing, err)
	}
	return nil
}

// uploadFailure marks as temporary what a fresh upload cures: a session that was lost, or bytes that were mangled on their way.
func (r *Registry) uploadFailure(ctx context.Context, doing string, err error) error {
	err = r.fail(ctx, doing, err)
	var e *Error
	if errors.As(err, &e) && e.has("BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID", "DIGEST_INVALID", "SIZE_INVALID", "RANGE_INVALID") {
		e.Temporary = true
	}
	return err
}

// abandonUpload tells the registry to drop a session. It is a courtesy, so its failure does not matter, and it takes no longer than a
// moment even when ctx has ended. Distribution refuses it for a session whose body broke off, because only an answer that never came
// would name the session's new state; such remains are removed by its own purge (uploadpurging, after a week by default).
func (r *Registry) abandonUpload(ctx context.Context, repository string, session *url.URL) {
	short, cancel := context.WithTimeout(context.WithoutCancel(ctx), 500*time.Millisecond)
	defer cancel()
	client, err := r.client(short, []string{pushScope(repository)})
	if err != nil {
		return
	}
	req, err := http.NewRequestWithContext(short, http.MethodDelete, session.String(), nil)
	if err != nil {
		return
	}
	if resp, err := client.Do(req); err == nil {
		_ = resp.Body.Close()
	}
}

// holdback passes a reader through, one byte late: the last byte goes out together with io.EOF. While it waits to be read, that is, for
// the registry to take what it was given, the stall timer runs; the reader behind it has its own.
type holdback struct {
	from  io.Reader
	stall *time.Timer
	held  byte
	has   bool
}

func (h *holdback) Read(p []byte) (int, error) {
	h.stall.Stop()
	if len(p) < 2 {
		// Room for the held byte and a new one is needed to make progress; callers that read single bytes get there through a buffer.
		return h.readSmall(p)
	}
	n := 0
	if h.has {
		p[0] = h.held
		n = 1
	}
	m, err := h.from.Read(p[n:])
	n += m
	return h.pass(p, n, err)
}

// pass decides what of the n bytes in p may go out now.
func (h *holdback) pass(p []byte, n int, err error) (int, error) {
	if errors.Is(err, io.EOF) {
		h.has = false
		h.stall.Reset(commitLimit)
		return n, io.EOF
	}
	if err != nil {
		h.has = false
		return max(n-1, 0), err
	}
	h.stall.Reset(stallLimit)
	if n > 0 {
		h.held, h.has = p[n-1], true
		n--
	}
	return n, nil
}

func (h *holdback) readSmall(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	var two [2]byte
	n := 0
	if h.has {
		two[0], n = h.held, 1
	}
	m, err := h.from.Read(two[n : n+1])
	n, err = h.pass(two[:], n+m, err)
	if n > len(p) {
		// Both bytes are final; the second goes out at the next read, when the source says io.EOF again.
		h.held, h.has = two[1], true
		n, err = 1, nil
	}
	copy(p, two[:n])
	return n, err
}
