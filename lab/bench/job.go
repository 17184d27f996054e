package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"golang.org/x/sync/errgroup"

	"transship/internal/distribution"
	"transship/internal/journal"
	"transship/internal/mirror"
	"transship/internal/objectstore"
)

// jobVariable has the job of a process that is measured.
const jobVariable = "TRANSSHIP_BENCH_JOB"

// job is something that a process of its own does, as the peers are processes of their own.
type job struct {
	// Do is mirror, list, loop or delta.
	Do     string                   `json:"do"`
	Swift  objectstore.SwiftOptions `json:"swift"`
	S3     objectstore.S3Options    `json:"s3"`
	Prefix string                   `json:"prefix"`
	// Shards of the prefix, and which of them this one takes.
	Shards  int              `json:"shards,omitempty"`
	Shard   int              `json:"shard,omitempty"`
	Jobs    int              `json:"jobs,omitempty"`
	Changes []journal.Change `json:"changes,omitempty"`
}

// outcome is what became of it.
type outcome struct {
	// Seconds that the work took, without the start of the process; Wall with it.
	Seconds float64 `json:"seconds"`
	Wall    float64 `json:"wall"`
	// Resident is the most memory that the process had, in bytes.
	Resident int64         `json:"resident"`
	Objects  int64         `json:"objects"`
	Cursor   mirror.Cursor `json:"cursor"`
}

// measure has a process of its own do a job.
func measure(ctx context.Context, j job) (outcome, error) {
	var o outcome
	raw, err := json.Marshal(j)
	if err != nil {
		return o, err
	}
	self, err := os.Executable()
	if err != nil {
		return o, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), jobVariable+"="+string(raw))
	cmd.Stderr = os.Stderr
	began := time.Now()
	out, err := cmd.Output()
	if err != nil {
		return o, fmt.Errorf("%s: %w", j.Do, err)
	}
	if err := json.Unmarshal(out, &o); err != nil {
		return o, err
	}
	o.Wall = time.Since(began).Seconds()
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		o.Resident = usage.Maxrss << 10
	}
	return o, nil
}

func runJob(ctx context.Context, raw string) error {
	var j job
	if err := json.Unmarshal([]byte(raw), &j); err != nil {
		return err
	}
	from, err := objectstore.NewSwift(ctx, j.Swift)
	if err != nil {
		return err
	}
	to, err := objectstore.NewS3(ctx, j.S3)
	if err != nil {
		return err
	}
	m := &mirror.Mirror{From: mirror.Side{Backend: "swift", Store: from}, To: mirror.Side{Backend: "ceph", Store: to}, Mark: "bench", Jobs: j.Jobs, Deletes: true}
	shard := mirror.Shard{Prefix: j.Prefix}
	if j.Shards > 1 {
		shards, err := mirror.Shards(ctx, from, j.Prefix, j.Shards)
		if err != nil {
			return err
		}
		shard = shards[j.Shard]
	}
	var o outcome
	began := time.Now()
	switch j.Do {
	case "mirror":
		o.Cursor, err = m.Run(ctx, shard, mirror.Cursor{})
	case "delta":
		_, err = m.Apply(ctx, j.Changes)
	case "list":
		o.Objects, err = list(ctx, from, to, shard)
	case "loop":
		err = loop(ctx, j, from)
	default:
		err = fmt.Errorf("nobody knows the job %q", j.Do)
	}
	o.Seconds = time.Since(began).Seconds()
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(o)
}

// list reads both listings and nothing else: the least that finding out that nothing changed can cost.
func list(ctx context.Context, from, to objectstore.Store, shard mirror.Shard) (int64, error) {
	group, ctx := errgroup.WithContext(ctx)
	counts := make([]int64, 2)
	for i, store := range []objectstore.Store{from, to} {
		group.Go(func() error {
			for _, err := range store.List(ctx, shard.Listing()) {
				if err != nil {
					return err
				}
				counts[i]++
			}
			return nil
		})
	}
	err := group.Wait()
	return counts[0] + counts[1], err
}

// loop is a bare copy loop: each blob is read from Swift and put to S3, one after the other, without looking at a single byte.
func loop(ctx context.Context, j job, from *objectstore.Swift) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, j.Swift.AuthURL, nil)
	if err != nil {
		return err
	}
	req.Header.Set("X-Auth-User", j.Swift.Username)
	req.Header.Set("X-Auth-Key", j.Swift.Password)
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	answer.Body.Close()
	client := s3.New(s3.Options{
		BaseEndpoint: aws.String(j.S3.Endpoint), Region: j.S3.Region, UsePathStyle: true,
		Credentials:                credentials.NewStaticCredentialsProvider(j.S3.AccessKey, j.S3.SecretKey, ""),
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
	})
	for object, err := range from.List(ctx, objectstore.ListOptions{Prefix: distribution.Blobs}) {
		if err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, answer.Header.Get("X-Storage-Url")+"/"+j.Swift.Container+"/"+j.Swift.Root+object.Key, nil)
		if err != nil {
			return err
		}
		req.Header.Set("X-Auth-Token", answer.Header.Get("X-Auth-Token"))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("read %s: %s", object.Key, resp.Status)
		}
		_, err = client.PutObject(ctx, &s3.PutObjectInput{
			Bucket: &j.S3.Bucket, Key: aws.String(j.S3.Root + object.Key), Body: io.Reader(resp.Body), ContentLength: aws.Int64(resp.ContentLength),
		}, s3.WithAPIOptions(v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware))
		resp.Body.Close()
		if err != nil {
			return fmt.Errorf("put %s: %w", object.Key, err)
		}
	}
	return nil
}

// host is the part of a URL that image names begin with.
func host(url string) string { return strings.TrimPrefix(url, "http://") }
