package main

import (
	"context"
	"crypto/md5" //nolint:gosec // the checksum that object stores list
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"transship/internal/distribution"
	"transship/internal/objectstore"
)

// memory runs the mirror on synthetic listings of growing size: a server stands in for both stores, the clients are the real ones.
func (b *benchmark) memory(ctx context.Context) error {
	b.report.text("## Memory\n\nBoth sides list the same objects, which a server makes up; clients and mirror are the real ones, in a process of their own.\n\n| objects on each side | seconds | resident, MiB at most |\n|---|---|---|")
	for _, n := range []int{10_000, 100_000, 1_000_000} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		s := &listings{n: n, address: "http://" + l.Addr().String()}
		server := &http.Server{Handler: s, ReadHeaderTimeout: time.Second}
		go func() { _ = server.Serve(l) }() // ends with Close
		o, err := measure(ctx, job{
			Do: "mirror", Prefix: "restricted",
			Swift: objectstore.SwiftOptions{AuthURL: s.address + "/auth/v1.0", Username: "u", Password: "p", Container: "registry", Root: swiftRoot},
			S3:    objectstore.S3Options{Endpoint: s.address, Region: "us-east-1", AccessKey: "a", SecretKey: "s", Bucket: "bucket", Root: s3Root},
		})
		_ = server.Close()
		if err != nil {
			return err
		}
		if o.Cursor.Links != 0 || o.Cursor.Progress.Tags == 0 {
			return fmt.Errorf("the listings were not taken for equal: %+v", o.Cursor)
		}
		b.report.texts[len(b.report.texts)-1] += fmt.Sprintf("\n| %d | %.1f | %.0f |", n, o.Seconds, float64(o.Resident)/(1<<20))
		b.say("%d objects: %.1f s, %.0f MiB", n, o.Seconds, float64(o.Resident)/(1<<20))
	}
	return nil
}

// listings makes up the listing of a registry with n objects: repositories with 200 images each, of which every image has a layer, a manifest, and a tag with two links.
type listings struct {
	n       int
	address string
}

const imagesEach = 200

// object is the i-th key of the listing, in byte order, with the digest that it links to.
func (s *listings) object(i int) (key, content string) {
	r, at := i/(4*imagesEach), i%(4*imagesEach)
	repository := fmt.Sprintf("restricted/r%06d", r)
	path := distribution.Path{Repository: repository}
	number := at
	switch {
	case at < imagesEach:
		path.Kind = distribution.Layer
	case at < 2*imagesEach:
		path.Kind, number = distribution.Revision, at-imagesEach
	default:
		number = (at - 2*imagesEach) / 2
		path.Kind, path.Tag = distribution.TagCurrent, fmt.Sprintf("v%04d", number)
		if at%2 == 1 {
			path.Kind = distribution.TagIndex
		}
	}
	path.Digest = digest.NewDigestFromEncoded(digest.SHA256, fmt.Sprintf("%08x%056x", number, r))
	return path.Key(), path.Digest.String()
}

func (s *listings) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	switch {
	case strings.HasPrefix(r.URL.Path, "/auth/"):
		w.Header().Set("X-Auth-Token", "t")
		w.Header().Set("X-Storage-Url", s.address+"/v1/account")
	case strings.HasPrefix(r.URL.Path, "/v1/"):
		s.swift(w, strings.TrimPrefix(q.Get("marker"), swiftRoot), 10_000)
	default:
		after := q.Get("start-after")
		if t := q.Get("continuation-token"); t != "" {
			after = t
		}
		if m := q.Get("marker"); m != "" {
			after = m
		}
		s.s3(w, strings.TrimPrefix(after, s3Root), 1000)
	}
}

// from is the index of the first key after one.
func (s *listings) from(after string) int {
	low, high := 0, s.n
	for low < high {
		if mid := (low + high) / 2; s.key(mid) <= after {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low
}

func (s *listings) key(i int) string { key, _ := s.object(i); return key }

func sum(content string) string {
	of := md5.Sum([]byte(content)) //nolint:gosec // see the import
	return hex.EncodeToString(of[:])
}

func (s *listings) swift(w http.ResponseWriter, after string, page int) {
	first := s.from(after)
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	fmt.Fprint(w, "[")
	for i := first; i < min(s.n, first+page); i++ {
		if i > first {
			fmt.Fprint(w, ", ")
		}
		key, content := s.object(i)
		fmt.Fprintf(w, `{"bytes": %d, "hash": %q, "name": %q, "content_type": "application/octet-stream", "last_modified": "2026-01-02T03:04:05.678900"}`, len(content), sum(content), swiftRoot+key)
	}
	fmt.Fprint(w, "]")
}

func (s *listings) s3(w http.ResponseWriter, after string, page int) {
	type contents struct {
		Key, LastModified, ETag string
		Size                    int
		StorageClass            string
	}
	answer := struct {
		XMLName               xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListBucketResult"`
		Name                  string
		IsTruncated           bool
		MaxKeys, KeyCount     int
		NextContinuationToken string `xml:",omitempty"`
		NextMarker            string `xml:",omitempty"`
		Contents              []contents
	}{Name: "bucket", MaxKeys: page}
	first := s.from(after)
	last := min(s.n, first+page)
	for i := first; i < last; i++ {
		key, content := s.object(i)
		answer.Contents = append(answer.Contents, contents{s3Root + key, "2026-01-02T03:04:05.678Z", `"` + sum(content) + `"`, len(content), "STANDARD"})
	}
	answer.KeyCount = last - first
	if answer.IsTruncated = last < s.n; answer.IsTruncated {
		answer.NextContinuationToken, answer.NextMarker = s3Root+s.key(last-1), s3Root+s.key(last-1)
	}
	w.Header().Set("Content-Type", "application/xml")
	_ = xml.NewEncoder(w).Encode(answer) // a client that went away notices by itself
}
