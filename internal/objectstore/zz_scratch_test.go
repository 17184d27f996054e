package objectstore

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand"
	"net/url"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

func scratch(t testing.TB, kind, root string) Store {
	ctx := context.Background()
	if kind == "s3" {
		s, err := NewS3(ctx, S3Options{Endpoint: "http://127.0.0.1:17480", Bucket: "registry", Root: root, AccessKey: "registry", SecretKey: "registrysecret"})
		if err != nil {
			t.Fatal(err)
		}
		s.client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &s.o.Bucket})
		return s
	}
	s, err := NewSwift(ctx, SwiftOptions{AuthURL: "http://127.0.0.1:18080/auth/v1.0", Username: "registry:registry", Password: "secret", Container: "registry", Root: root})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestScratch(t *testing.T) {
	ctx := context.Background()
	for _, kind := range []string{"swift", "s3"} {
		s := scratch(t, kind, "files/docker/registry/v2/")
		for _, size := range []int{0, 5, 100000, 40 << 20} {
			c := make([]byte, size)
			rand.New(rand.NewSource(1)).Read(c)
			t0 := time.Now()
			o, err := s.Put(ctx, "x/y é+%", bytes.NewReader(c), int64(size), PutOptions{Mark: "m/1"})
			fmt.Println(kind, size, o, err, time.Since(t0))
			o, err = s.Stat(ctx, "x/y é+%", ReadOptions{Newest: true})
			fmt.Println(o, err)
			r, o, err := s.Get(ctx, "x/y é+%", ReadOptions{})
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(r)
			fmt.Println(o, err, bytes.Equal(b, c))
			for o, err := range s.List(ctx, ListOptions{}) {
				fmt.Println("   ", o, err)
			}
			if g, ok := s.(Segmented); ok {
				fmt.Println(g.Segments(ctx, "x/y é+%"))
			}
		}
		fmt.Println(s.Delete(ctx, "x/y é+%"))
		for o, err := range s.List(ctx, ListOptions{}) {
			fmt.Println("   ", o, err)
		}
		if g, ok := s.(Segmented); ok {
			for o, err := range g.AllSegments(ctx) {
				fmt.Println("seg   ", o, err)
			}
		}
	}
}

func TestFillScratch(t *testing.T) {
	ctx := context.Background()
	n := 20000
	for _, kind := range []string{"swift", "s3"} {
		s := scratch(t, kind, "bench/")
		var wg sync.WaitGroup
		next := make(chan int)
		t0 := time.Now()
		for range 32 {
			wg.Go(func() {
				for i := range next {
					k := fmt.Sprintf("repositories/restricted/app-%03d/_manifests/revisions/sha256/%064x/link", i/100, i)
					c := fmt.Sprintf("sha256:%064x", i)
					if _, err := s.Put(ctx, k, bytes.NewReader([]byte(c)), int64(len(c)), PutOptions{}); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		for i := range n {
			next <- i
		}
		close(next)
		wg.Wait()
		fmt.Println(kind, "puts/s", float64(n)/time.Since(t0).Seconds())
	}
	_ = os.Args
}

func BenchmarkList(b *testing.B) {
	for _, kind := range []string{"swift", "s3"} {
		b.Run(kind, func(b *testing.B) {
			s := scratch(b, kind, "bench/")
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				n = 0
				for _, err := range s.List(b.Context(), ListOptions{}) {
					if err != nil {
						b.Fatal(err)
					}
					n++
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "objects/s")
		})
	}
}

func cpu() time.Duration {
	var r syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func TestBare(t *testing.T) {
	ctx := context.Background()
	sw := scratch(t, "swift", "bench/").(*Swift)
	s3s := scratch(t, "s3", "bench/").(*S3)
	for range 5 {
		t0, c0 := time.Now(), cpu()
		marker := ""
		for _, m := range []string{"", "bench/repositories/restricted/app-099/_manifests/revisions/sha256/000000000000000000000000000000000000000000000000000000000000270f/link"} {
			_ = marker
			q := url.Values{"format": {"json"}, "prefix": {"bench/"}, "limit": {"10000"}}
			if m != "" {
				q.Set("marker", m)
			}
			if _, err := sw.read(ctx, request{op: "list", method: "GET", container: "registry", query: q}); err != nil {
				t.Fatal(err)
			}
		}
		bareS := time.Since(t0)
		cs := cpu() - c0
		t0, c0 = time.Now(), cpu()
		n := 0
		for _, err := range sw.List(ctx, ListOptions{}) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		fmt.Println("swift bare", bareS, cs, "List", time.Since(t0), cpu()-c0, n)
		t0, c0 = time.Now(), cpu()
		after := ""
		for i := range 20 {
			if i > 0 {
				k := i*1000 - 1
				after = fmt.Sprintf("bench/repositories/restricted/app-%03d/_manifests/revisions/sha256/%064x/link", k/100, k)
			}
			s3s.client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &s3s.o.Bucket, StartAfter: &after}, s3.WithAPIOptions(func(stack *middleware.Stack) error {
				stack.Deserialize.Swap("OperationDeserializer", middleware.DeserializeMiddlewareFunc("OperationDeserializer", func(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
					o, m, err := next.HandleDeserialize(ctx, in)
					io.Copy(io.Discard, o.RawResponse.(*smithyhttp.Response).Body)
					o.Result = &s3.ListObjectsV2Output{}
					return o, m, err
				}))
				return nil
			}))
		}
		bareS = time.Since(t0)
		cs = cpu() - c0
		t0, c0 = time.Now(), cpu()
		n = 0
		for _, err := range s3s.List(ctx, ListOptions{}) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		fmt.Println("s3 bare", bareS, cs, "List", time.Since(t0), cpu()-c0, n)
	}
}
