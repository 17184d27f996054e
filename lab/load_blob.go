package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// blob is random content that is made anew whenever it is needed.
type blob struct {
	Digest string
	Size   int64
	seed   [32]byte
}

func (b blob) open() io.Reader { return io.LimitReader(rand.NewChaCha8(b.seed), b.Size) }

// large is from where on blobs are rare.
const large = 16 << 20

func (l *Load) blob() blob {
	l.mu.Lock()
	b := blob{Size: 1 << 10}
	switch n := l.random.IntN(100); {
	case n < 75:
		b.Size = 1<<10 + l.random.Int64N(64<<10)
	case n < 97:
		b.Size = 64<<10 + l.random.Int64N(1<<20)
	case n < 99 || l.Largest <= large:
		most := min(l.Largest, large)
		b.Size = most/2 + l.random.Int64N(most/2)
	case l.random.IntN(8) == 0:
		b.Size = l.Largest
	default: // of each order of magnitude as many, so that a disk can hold a night of them
		b.Size = int64(large * math.Pow(float64(l.Largest)/large, l.random.Float64()))
	}
	for i := range b.seed {
		b.seed[i] = byte(l.random.IntN(256))
	}
	l.mu.Unlock()
	sum := sha256.New()
	_, _ = io.Copy(sum, b.open())
	b.Digest = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	return b
}

// upload sends a blob in one of the ways that the protocol has.
func (l *Load) upload(ctx context.Context, repository string, b blob) error {
	path := "/v2/" + repository + "/blobs/uploads/"
	plain := map[string]string{"Content-Type": "application/octet-stream"}
	way := l.int(3)
	if b.Size > 4<<10 {
		// Distribution 2.8 answers without reading the body; Go's server then reads 256 KiB more of it and resets the connection, and nginx says 502, with or without a migration.
		way = 1 + l.int(2)
	}
	var resp *http.Response
	var err error
	if way == 0 { // all in one, which Distribution 2.8 answers by opening a session
		resp, err = l.do(ctx, http.MethodPost, path+"?digest="+url.QueryEscape(b.Digest), plain, b.open(), b.Size)
	} else {
		resp, err = l.do(ctx, http.MethodPost, path, nil, nil, 0)
	}
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode == http.StatusCreated {
		return nil
	}
	location := resp.Header.Get("Location")
	if way == 2 {
		content := b.open()
		for sent, chunk := int64(0), b.Size/int64(2+l.int(3))+1; sent < b.Size; sent += chunk {
			n := min(chunk, b.Size-sent)
			header := map[string]string{"Content-Type": "application/octet-stream", "Content-Range": fmt.Sprintf("%d-%d", sent, sent+n-1)}
			if resp, err = l.do(ctx, http.MethodPatch, location, header, io.NopCloser(io.LimitReader(content, n)), n); err != nil {
				return err
			}
			resp.Body.Close()
			location = resp.Header.Get("Location")
			pause(ctx, time.Duration(l.int(100))*time.Millisecond)
		}
		resp, err = l.do(ctx, http.MethodPut, commit(location, b.Digest), plain, nil, 0)
	} else {
		resp, err = l.do(ctx, http.MethodPut, commit(location, b.Digest), plain, io.NopCloser(b.open()), b.Size)
	}
	if err != nil {
		return err
	}
	resp.Body.Close()
	return nil
}

// commit is where a session is ended with a digest.
func commit(location, digest string) string {
	join := "?"
	if strings.Contains(location, "?") {
		join = "&"
	}
	return location + join + "digest=" + url.QueryEscape(digest)
}

const manifestType = "application/vnd.oci.image.manifest.v1+json"

// manifest describes an image.
func manifest(config blob, layers ...blob) []byte {
	describe := func(mediaType string, b blob) map[string]any {
		return map[string]any{"mediaType": mediaType, "digest": b.Digest, "size": b.Size}
	}
	var all []any
	for _, b := range layers {
		all = append(all, describe("application/vnd.oci.image.layer.v1.tar", b))
	}
	raw, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": manifestType, "config": describe("application/vnd.oci.image.config.v1+json", config), "layers": all,
	})
	if err != nil {
		panic(err) // of what is above, nothing can fail
	}
	return raw
}
