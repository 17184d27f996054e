package registry

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// blob makes sure that the target's repository has a blob. Whoever wants the same one meanwhile waits for this copy; in another
// repository of the target it is mounted from here later.
func (w *run) blob(ctx context.Context, want v1.Descriptor) error {
	_, err := w.needed.do(ctx, want.Digest.String(), func() (struct{}, error) {
		key := named(w.repository, want.Digest.String())
		return w.blobs.do(ctx, key, func() (struct{}, error) {
			if _, known := w.present.get(key); known {
				return struct{}{}, nil
			}
			release, err := w.slot(ctx)
			if err != nil {
				return struct{}{}, err
			}
			defer release()
			left, err := w.bring(ctx, want)
			if err != nil {
				return struct{}{}, err
			}
			if left {
				w.foreign.Add(1)
				return struct{}{}, nil
			}
			w.present.put(key, "")
			w.Holders.put(want.Digest.String(), w.repository)
			return struct{}{}, nil
		})
	})
	return err
}

// bring copies a blob unless the target has it. left reports a foreign layer that the source does not have either.
func (w *run) bring(ctx context.Context, want v1.Descriptor) (left bool, err error) {
	size, ok, err := w.To.HasBlob(ctx, w.repository, want.Digest)
	if err != nil && !unreadable(err) {
		return false, err
	}
	if ok {
		if want.Size >= 0 && size >= 0 && size != want.Size {
			// Registries do not replace a blob that they have, so this one must be healed in the store.
			return false, w.To.wrongSize(w.repository, want, size)
		}
		w.count(&w.counts.present)
		return false, nil
	}
	var cuts []int64
	wait := w.From.retryWait
	for try := 1; ; try++ {
		mounted, err := w.transfer(ctx, want)
		if err == nil {
			if mounted {
				w.count(&w.counts.mounted)
			} else {
				w.count(&w.counts.blobs)
			}
			return false, nil
		}
		var p *Problem
		if errors.As(err, &p) && p.Kind == Missing && foreign(want) {
			return true, nil
		}
		var cut *cutError
		if errors.As(err, &cut) {
			cuts = append(cuts, cut.at)
		}
		if try == tries && sameCut(cuts) {
			return false, w.From.problem(Short, w.repository, want.Digest, "each of %d tries ended after %d bytes: %v", tries, cuts[0], cut.failure.Err)
		}
		if !IsTemporary(err) || try == tries || !sleep(ctx, jitter(wait)) {
			return false, err
		}
		wait *= 3
	}
}

// sameCut reports whether every try lost its connection to the source at the same byte. A network does not do that; a registry whose
// store has lost the rest of the blob does.
func sameCut(cuts []int64) bool {
	for _, at := range cuts {
		if at != cuts[0] {
			return false
		}
	}
	return len(cuts) == tries
}

// cutError is a source that ended in the middle of a blob.
type cutError struct {
	failure *Error
	at      int64
}

func (e *cutError) Error() string { return e.failure.Error() }

// Unwrap lets IsTemporary see the failure itself.
func (e *cutError) Unwrap() error { return e.failure }

// transfer brings a blob once, by mounting it or by streaming it through. Where another repository of the target is just getting the same blob, it
// waits for that and mounts it from there.
func (w *run) transfer(ctx context.Context, want v1.Descriptor) (mounted bool, err error) {
	if mounted, err := w.mount(ctx, want); err != nil || mounted {
		return mounted, err
	}
	mine := false
	_, err = w.Holders.coming.do(ctx, want.Digest.String(), func() (struct{}, error) {
		mine = true
		err := w.stream(ctx, want)
		if err == nil {
			w.Holders.put(want.Digest.String(), w.repository)
		}
		return struct{}{}, err
	})
	if mine || ctx.Err() != nil {
		return false, err
	}
	if err == nil {
		if mounted, err := w.mount(ctx, want); err != nil || mounted {
			return mounted, err
		}
	}
	return false, w.stream(ctx, want) // what kept the other from it may not concern this repository
}

// mount takes a blob from another repository of the target that is known to hold it, if there is one.
func (w *run) mount(ctx context.Context, want v1.Descriptor) (mounted bool, err error) {
	holder, known := w.Holders.get(want.Digest.String())
	if !known || holder == w.repository {
		return false, nil
	}
	session, mounted, err := w.To.beginUpload(ctx, w.repository, want.Digest, holder)
	if err != nil || mounted {
		return mounted, err
	}
	// The registry offers an upload instead; what it was said to hold it may have lost.
	w.Holders.drop(want.Digest.String())
	w.To.abandonUpload(ctx, w.repository, session)
	return false, nil
}

// stream reads a blob from the source and writes it to the target.
func (w *run) stream(ctx context.Context, want v1.Descriptor) error {
	// The source first: a blob that it does not have should leave no upload session behind at the target.
	source, err := w.From.open(ctx, w.repository, want)
	var p *Problem
	if errors.Is(err, ErrNotFound) && !errors.As(err, &p) {
		return w.From.problem(Missing, w.repository, want.Digest, "the blob is not there")
	}
	if err != nil {
		return err
	}
	defer source.Close()
	session, _, err := w.To.beginUpload(ctx, w.repository, want.Digest, "")
	if err != nil {
		return err
	}
	meter := &meter{ctx: ctx, from: source, limiter: w.Limiter, total: &w.counts.bytes}
	err = w.To.finishUpload(ctx, w.repository, want.Digest, session, meter, source.size)
	if err == nil {
		return nil
	}
	meter.retract()
	w.To.abandonUpload(ctx, w.repository, session)
	n, cause := source.state()
	if cause == nil || errors.Is(cause, io.EOF) || ctx.Err() != nil {
		return err
	}
	// The upload failed because the source did.
	var e *Error
	if errors.As(cause, &e) && errors.Is(cause, io.ErrUnexpectedEOF) {
		return &cutError{failure: e, at: n}
	}
	return cause
}

// meter counts and throttles the bytes of a blob as they pass.
type meter struct {
	ctx     context.Context
	from    io.Reader
	limiter Limiter
	total   *atomic.Int64
	passed  atomic.Int64
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.from.Read(p)
	m.passed.Add(int64(n))
	m.total.Add(int64(n))
	if m.limiter != nil && n > 0 {
		if limited := throttle(m.ctx, m.limiter, n); limited != nil {
			return n, limited
		}
	}
	return n, err
}

// retract takes back what a failed try has counted.
func (m *meter) retract() { m.total.Add(-m.passed.Swap(0)) }
