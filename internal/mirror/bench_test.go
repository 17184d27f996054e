package mirror

import (
	"context"
	"fmt"
	"io"
	"iter"
	"testing"

	"github.com/opencontainers/go-digest"

	"transship/internal/distribution"
	"transship/internal/objectstore"
	"transship/internal/objectstore/storetest"
)

// BenchmarkNothingChanged is what the join of two equal listings costs, without the stores: they cost ten times that at least.
func BenchmarkNothingChanged(b *testing.B) {
	w := newWorld()
	for i := range 20 {
		for tag := range 100 {
			repository := fmt.Sprintf("restricted/r%d", i)
			w.source.Tag(repository, fmt.Sprintf("v%d", tag), w.source.Image(repository, nil, fmt.Sprintf("layer %d of %d", tag, i)))
		}
	}
	if _, err := w.mirror().Run(b.Context(), everything, Cursor{}); err != nil {
		b.Fatal(err)
	}
	source, target := &listed{Memory: w.from}, &listed{Memory: w.to}
	n := source.take(b)
	target.take(b)
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		m := w.mirror()
		m.From.Store, m.To.Store = source, target
		at, err := m.Run(b.Context(), everything, Cursor{})
		if err != nil || at.Progress.TagsUnchanged != 2000 {
			b.Fatal(at, err)
		}
	}
	b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "objects/s")
}

// listed gives one listing again and again, so that making it is not measured.
type listed struct {
	*storetest.Memory
	objects []objectstore.Object
}

func (l *listed) take(b *testing.B) int {
	for o, err := range l.Memory.List(b.Context(), everything.Listing()) {
		if err != nil {
			b.Fatal(err)
		}
		l.objects = append(l.objects, o)
	}
	return len(l.objects)
}

func (l *listed) List(context.Context, objectstore.ListOptions) iter.Seq2[objectstore.Object, error] {
	return func(yield func(objectstore.Object, error) bool) {
		for _, o := range l.objects {
			if !yield(o, nil) {
				return
			}
		}
	}
}

// BenchmarkVerifiedBytes is what hashing costs while a blob streams.
func BenchmarkVerifiedBytes(b *testing.B) {
	m := newWorld().mirror()
	content := make([]byte, 8<<20)
	d := digest.FromBytes(content)
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		if _, err := io.Copy(io.Discard, m.verified(&repeated{content}, d, int64(len(content)))); err != nil {
			b.Fatal(err)
		}
	}
}

type repeated struct{ rest []byte }

func (r *repeated) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// BenchmarkParse is what finding out the meaning of a key costs.
func BenchmarkParse(b *testing.B) {
	key := distribution.Path{Kind: distribution.TagIndex, Repository: "restricted/a/b", Tag: "v1", Digest: digest.FromString("x")}.Key()
	b.ReportAllocs()
	for b.Loop() {
		if distribution.Parse(key).Kind != distribution.TagIndex {
			b.Fatal("not parsed")
		}
	}
}
