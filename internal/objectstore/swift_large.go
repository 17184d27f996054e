package objectstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
)

// mostSegments is how many segments a Static Large Object may have, unless its operator said otherwise.
const mostSegments = 1000

// segmentsRoot is where segments lie in the container: Distribution's driver has them beside its "files" folder, below the same prefix.
func (s *Swift) segmentsRoot() string {
	if at := strings.Index("/"+s.o.Root, "/files/"); at >= 0 {
		return s.o.Root[:at] + "segments/"
	}
	return "segments/"
}

// segmentsOf is the folder of the segments that we write for a key.
func (s *Swift) segmentsOf(key string) string {
	sum := sha256.Sum256([]byte(s.o.Root + key))
	return s.segmentsRoot() + "transship/" + hex.EncodeToString(sum[:16]) + "/"
}

// putLarge stores a Static Large Object. Segments are named by their content: those of an upload that did not come to its end are found again, and
// two workers that store the same help each other.
func (s *Swift) putLarge(ctx context.Context, from *source, o PutOptions) (Object, error) {
	before, err := s.ours(ctx, from.key)
	if err != nil {
		return Object{}, err
	}
	folder := s.segmentsOf(from.key)
	there := map[string]bool{}
	for segment, err := range s.list(ctx, s.o.Container, "", ListOptions{Prefix: folder}) {
		if err != nil {
			return Object{}, err
		}
		there[segment.Key] = true
	}
	name := func(p part) string { return folder + p.md5 + "-" + strconv.FormatInt(p.size, 10) }
	var mu sync.Mutex
	var wrote []Object
	parts, err := inParts(ctx, s.buffers, from, partFor(from.size, mostSegments), func(ctx context.Context, p part, content []byte) error {
		key := name(p)
		if there[key] && s.has(ctx, key, p) {
			return nil
		}
		stored, err := s.put(ctx, s.o.Container, key, content, p.md5, "")
		if err == nil && !there[key] {
			mu.Lock()
			defer mu.Unlock()
			wrote = append(wrote, Object{Key: s.o.Container + "/" + key, Size: stored.Size})
		}
		return err
	})
	if err != nil {
		if from.failed() && ctx.Err() == nil {
			err = errors.Join(err, s.removeSegments(ctx, wrote)) // nobody will go on with these
		}
		return Object{}, err
	}
	stored, err := s.putManifest(ctx, from, o, parts, name)
	if err != nil {
		return Object{}, err
	}
	now := map[string]bool{}
	for _, p := range parts {
		now[s.o.Container+"/"+name(p)] = true
	}
	var old []Object
	for _, segment := range before {
		if !now[segment.Key] {
			old = append(old, segment)
		}
	}
	return stored, s.removeSegments(ctx, old)
}

// ours are the segments that we once wrote for a key whose object is now to be replaced.
func (s *Swift) ours(ctx context.Context, key string) ([]Object, error) {
	h, err := s.head(ctx, key, ReadOptions{})
	if errors.Is(err, ErrNotExist) || err == nil && h.Get(staticHeader) == "" {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all, err := s.staticSegments(ctx, key)
	var ours []Object
	for _, segment := range all {
		if strings.HasPrefix(segment.Key, s.o.Container+"/"+s.segmentsOf(key)) {
			ours = append(ours, segment)
		}
	}
	return ours, err
}

// has asks for a segment that a listing showed: listings may be outdated.
func (s *Swift) has(ctx context.Context, key string, p part) bool {
	h, err := s.do(ctx, request{op: "stat", method: http.MethodHead, container: s.o.Container, key: key})
	return err == nil && strings.Trim(h.Get("Etag"), `"`) == p.md5 && h.Get("Content-Length") == strconv.FormatInt(p.size, 10)
}

// putManifest makes the object visible. Swift compares each segment with what the manifest says of it.
func (s *Swift) putManifest(ctx context.Context, from *source, o PutOptions, parts []part, name func(part) string) (Object, error) {
	type segment struct {
		Path string `json:"path"`
		ETag string `json:"etag"`
		Size int64  `json:"size_bytes"`
	}
	manifest := make([]segment, len(parts))
	for i, p := range parts {
		manifest[i] = segment{"/" + s.o.Container + "/" + name(p), p.md5, p.size}
	}
	content, err := json.Marshal(manifest)
	if err != nil {
		return Object{}, fmt.Errorf("writing the manifest of %q: %w", from.key, err)
	}
	tag := partsETag(parts, func(sum string) []byte { return []byte(sum) })
	r := request{op: "put", method: http.MethodPut, container: s.o.Container, key: s.o.Root + from.key, body: content,
		query:  url.Values{"multipart-manifest": {"put"}},
		header: map[string]string{"Etag": tag, "Content-Type": "application/octet-stream"}}
	if o.Mark != "" {
		r.header[markHeader] = o.Mark
	}
	h, err := s.do(patiently(ctx, slow), r)
	var status *StatusError
	if errors.As(err, &status) && (status.Status == http.StatusBadRequest || status.Status == http.StatusUnprocessableEntity) {
		// A segment went missing since we saw it: another attempt sends it again.
		return Object{}, fmt.Errorf("%q could not be put together: %w", from.key, &brokenError{errors.New(status.Error())})
	}
	if err != nil {
		return Object{}, err
	}
	if held := strings.Trim(h.Get("Etag"), `"`); held != tag {
		return Object{}, &ChecksumError{Key: from.key, Sent: tag, Held: held}
	}
	stored := described(from.key, h, from.size)
	stored.MD5, stored.Parts, stored.Mark = "", Static, o.Mark
	return stored, nil
}
