package objectstore

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Room is how much more a store takes.
type Room struct {
	// Known says that the store tells. Most object stores have no bound but their operator's money.
	Known bool `json:"known"`
	// Bytes that still fit, at most; others may use them as well.
	Bytes int64 `json:"bytes"`
	// Says is where that is from.
	Says string `json:"says,omitempty"`
}

// roomy is a Store that may know its room.
type roomy interface {
	room(context.Context) (Room, error)
}

// RoomOf asks a store how much more it takes.
func RoomOf(ctx context.Context, store Store) (Room, error) {
	if r, ok := beneath(store).(roomy); ok {
		return r.room(ctx)
	}
	return Room{}, nil
}

// beneath is the store under its limits.
func beneath(store Store) Store {
	for {
		switch s := store.(type) {
		case throttled:
			store = s.Store
		case segmentedThrottled:
			store = s.Store
		default:
			return store
		}
	}
}

// less is the room that leaves fewer bytes.
func (r Room) less(o Room) Room {
	if !r.Known || o.Known && o.Bytes < r.Bytes {
		return o
	}
	return r
}

// quota makes a room of two numbers, if both are there; quotas of 0 or less mean none.
func quota(limit, used, says string) Room {
	most, err := strconv.ParseInt(limit, 10, 64)
	have, usedErr := strconv.ParseInt(used, 10, 64)
	if err != nil || usedErr != nil || most <= 0 {
		return Room{}
	}
	return Room{Known: true, Bytes: max(most-have, 0), Says: fmt.Sprintf("%s is %d bytes, %d of them used", says, most, have)}
}

func (f *Filesystem) room(context.Context) (Room, error) {
	path := f.path
	for { // the folder is made by the first Put
		if _, err := os.Stat(path); err == nil || path == filepath.Dir(path) {
			break
		}
		path = filepath.Dir(path)
	}
	var s syscall.Statfs_t
	if err := syscall.Statfs(path, &s); err != nil {
		return Room{}, fmt.Errorf("room in %s: %w", f, err)
	}
	return Room{Known: true, Bytes: int64(s.Bavail) * s.Bsize, Says: "the file system of " + path + " has that free"}, nil
}

// room reads the quotas of account and container (https://docs.openstack.org/swift/latest/middleware.html#module-swift.common.middleware.account_quotas).
func (s *Swift) room(ctx context.Context) (Room, error) {
	var least Room
	for _, q := range []struct{ container, limit, used, says string }{
		{"", "X-Account-Meta-Quota-Bytes", "X-Account-Bytes-Used", "the quota of the account"},
		{s.o.Container, "X-Container-Meta-Quota-Bytes", "X-Container-Bytes-Used", "the quota of container " + s.o.Container},
	} {
		// Swift 2.30 ends these answers, which have no body, as if they had one: the connection is of no use afterwards.
		header, err := s.do(ctx, request{op: "room", method: http.MethodHead, container: q.container, header: map[string]string{"Connection": "close"}})
		if err != nil {
			return Room{}, err
		}
		least = least.less(quota(header.Get(q.limit), header.Get(q.used), q.says))
	}
	return least, nil
}

// room reads what Ceph's gateway says of a bucket in headers of its own (dump_bucket_metadata in rgw_rest_s3.cc). Other stores say nothing.
func (s *S3) room(ctx context.Context) (Room, error) {
	var header http.Header
	err := s.try(ctx, "room", "", func() error {
		out, err := s.client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &s.o.Bucket})
		if err != nil {
			return err
		}
		if raw, ok := awsmiddleware.GetRawResponse(out.ResultMetadata).(*smithyhttp.Response); ok {
			header = raw.Header
		}
		return nil
	})
	if err != nil {
		return Room{}, err
	}
	used := header.Get("X-Rgw-Bytes-Used")
	// The user may have other buckets: what these use is not told, so less may fit than this says.
	return quota(header.Get("X-Rgw-Quota-Bucket-Size"), used, "the quota of bucket "+s.o.Bucket).
		less(quota(header.Get("X-Rgw-Quota-User-Size"), used, "the quota of the bucket's user")), nil
}
