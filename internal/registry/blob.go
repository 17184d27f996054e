package registry

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// stallLimit is how long a blob may stand still, on either side, before the try is given up.
const stallLimit = 90 * time.Second

// HasBlob asks whether the repository has the blob, and how many bytes the registry says it has (-1 when it does not say).
func (r *Registry) HasBlob(ctx context.Context, repository string, digest v1.Hash) (size int64, ok bool, err error) {
	a, err := r.do(ctx, request{
		doing:  "asking for blob " + named(repository, digest.String()),
		method: http.MethodHead, path: "/v2/" + repository + "/blobs/" + digest.String(), scopes: []string{pullScope(repository)},
		want: []int{http.StatusOK},
	})
	if errors.Is(err, ErrNotFound) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	return a.length, true, nil
}

// Blob opens a blob for reading. The bytes are hashed as they pass: reading ends with io.EOF only if all of them were right, and with
// a *Problem if not. ErrNotFound when the repository has no such blob. The caller closes it.
func (r *Registry) Blob(ctx context.Context, repository string, digest v1.Hash) (io.ReadCloser, error) {
	wait := r.retryWait
	for try := 1; ; try++ {
		b, err := r.open(ctx, repository, v1.Descriptor{Digest: digest, Size: -1})
		if err == nil {
			return b, nil
		}
		if !IsTemporary(err) || try == tries || !sleep(ctx, jitter(wait)) {
			return nil, err
		}
		wait *= 3
	}
}

// blob is an open blob. Its fields that tell how far it got are guarded, because net/http may still read a request's body when it has
// already returned.
type blob struct {
	ctx    context.Context // the caller's
	inner  context.Context // ends with it, or when nothing moves
	cancel context.CancelCauseFunc
	reg    *Registry
	repo   string
	want   v1.Descriptor
	body   io.ReadCloser
	size   int64 // as the registry announced it, or the manifest; -1 unknown
	stall  *time.Timer

	mu   sync.Mutex
	hash hash.Hash
	n    int64
	err  error
}

// open begins reading a blob, once. A length that is not what the descriptor says is a *Problem at once, before any byte.
func (r *Registry) open(ctx context.Context, repository string, want v1.Descriptor) (*blob, error) {
	doing := "reading blob " + named(repository, want.Digest.String())
	h, err := v1.Hasher(want.Digest.Algorithm)
	if err != nil {
		return nil, fmt.Errorf("backend %s: %s: %w", r.name, doing, err)
	}
	client, err := r.client(ctx, []string{pullScope(repository)})
	if err != nil {
		return nil, err
	}
	inner, cancel := context.WithCancelCause(ctx)
	b := &blob{ctx: ctx, inner: inner, cancel: cancel, reg: r, repo: repository, want: want, hash: h}
	b.stall = time.AfterFunc(stallLimit, func() { cancel(errStalled) })
	req, err := http.NewRequestWithContext(inner, http.MethodGet, r.base.String()+"/v2/"+repository+"/blobs/"+want.Digest.String(), nil)
	if err != nil {
		b.release()
		return nil, fmt.Errorf("backend %s: %s: %w", r.name, doing, err)
	}
	resp, err := client.Do(req)
	b.stall.Stop()
	if err != nil {
		b.release()
		return nil, r.fail(ctx, doing, err)
	}
	b.body, b.size = resp.Body, resp.ContentLength
	if err := transport.CheckError(resp, http.StatusOK); err != nil {
		_ = b.Close()
		return nil, r.fail(ctx, doing, err)
	}
	if want.Size >= 0 && b.size >= 0 && b.size != want.Size {
		_ = b.Close()
		return nil, r.wrongSize(repository, want, b.size)
	}
	if want.Size >= 0 {
		b.size = want.Size
	}
	return b, nil
}

// wrongSize is the problem of a blob that has another size than its manifest says.
func (r *Registry) wrongSize(repository string, want v1.Descriptor, have int64) *Problem {
	kind := Short
	if have > want.Size {
		kind = Long
	}
	return r.problem(kind, repository, want.Digest, "%d bytes instead of %d", have, want.Size)
}

// Read reads and hashes.
func (b *blob) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return 0, b.err
	}
	b.stall.Reset(stallLimit)
	n, err := b.body.Read(p)
	b.stall.Stop()
	b.n += int64(n)
	b.hash.Write(p[:n])
	switch {
	case b.size >= 0 && b.n > b.size:
		b.err = b.reg.wrongSize(b.repo, b.want, b.n)
	case err == nil:
	case errors.Is(err, io.EOF):
		b.err = b.verdict()
	default:
		if errors.Is(context.Cause(b.inner), errStalled) {
			err = errStalled
		}
		b.err = b.reg.fail(b.ctx, fmt.Sprintf("reading blob %s, after %d bytes", named(b.repo, b.want.Digest.String()), b.n), err)
	}
	return n, b.err
}

// verdict is io.EOF for a good blob.
func (b *blob) verdict() error {
	if b.size >= 0 && b.n != b.size {
		return b.reg.wrongSize(b.repo, v1.Descriptor{Digest: b.want.Digest, Size: b.size}, b.n)
	}
	if got := hex.EncodeToString(b.hash.Sum(nil)); got != b.want.Digest.Hex {
		return b.reg.problem(Corrupt, b.repo, b.want.Digest, "the %d bytes hash to %s:%s", b.n, b.want.Digest.Algorithm, got)
	}
	return io.EOF
}

// state tells how many bytes came, and the error that ended the reading, if it ended: io.EOF means all is well.
func (b *blob) state() (int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.n, b.err
}

// Close ends the reading; the rest of the blob is not fetched.
func (b *blob) Close() error {
	b.release()
	return b.body.Close()
}

func (b *blob) release() {
	b.stall.Stop()
	b.cancel(nil)
}

func hashOf(algorithm string, content []byte) (v1.Hash, error) {
	h, err := v1.Hasher(algorithm)
	if err != nil {
		return v1.Hash{}, err
	}
	h.Write(content)
	return v1.Hash{Algorithm: algorithm, Hex: hex.EncodeToString(h.Sum(nil))}, nil
}
