package objectstore

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"io"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// markName is the name of the mark among an object's metadata.
const markName = "transship-mark"

// Stat implements Store. S3 has one answer for all readers: Newest changes nothing.
func (s *S3) Stat(ctx context.Context, key string, _ ReadOptions) (Object, error) {
	var out *s3.HeadObjectOutput
	in := &s3.HeadObjectInput{Bucket: &s.o.Bucket, Key: aws.String(s.o.Root + key)}
	err := s.try(ctx, "stat", key, func() (err error) { out, err = s.client.HeadObject(ctx, in); return err })
	if err != nil {
		return Object{}, missing(err, "stat", key, s)
	}
	o := Object{Key: key, Size: aws.ToInt64(out.ContentLength), Modified: aws.ToTime(out.LastModified), Mark: out.Metadata[markName]}
	fromETag(&o, out.ETag)
	return o, nil
}

// Get implements Store.
func (s *S3) Get(ctx context.Context, key string, o ReadOptions) (io.ReadCloser, Object, error) {
	var object Object
	open := func(ctx context.Context, offset int64) (io.ReadCloser, int64, error) {
		in := &s3.GetObjectInput{Bucket: &s.o.Bucket, Key: aws.String(s.o.Root + key)}
		if value := span(o, offset); value != "" {
			in.Range = &value
		}
		if object.ETag != "" {
			in.IfMatch = aws.String(`"` + object.ETag + `"`)
		}
		var out *s3.GetObjectOutput
		err := s.try(ctx, "get", key, func() (err error) { out, err = s.client.GetObject(ctx, in); return err })
		var status *StatusError
		if errors.As(err, &status) && status.Code == "NoSuchBucket" {
			return nil, 0, err
		}
		if err != nil {
			return nil, 0, missing(err, "get", key, s)
		}
		if object.ETag == "" {
			object = Object{Key: key, Size: whole(aws.ToString(out.ContentRange), aws.ToInt64(out.ContentLength)), Modified: aws.ToTime(out.LastModified), Mark: out.Metadata[markName]}
			fromETag(&object, out.ETag)
		}
		return out.Body, aws.ToInt64(out.ContentLength), nil
	}
	return resume(ctx, s, key, o, &object, open)
}

// Put implements Store. What is larger than one part is a multipart upload.
func (s *S3) Put(ctx context.Context, key string, body io.Reader, size int64, o PutOptions) (Object, error) {
	from := &source{key: key, body: body, size: size}
	if size > partSize {
		return s.putLarge(ctx, from, o)
	}
	return putWhole(ctx, s.buffers, from, func(content []byte, sum string) (Object, error) {
		in := &s3.PutObjectInput{Bucket: &s.o.Bucket, Key: aws.String(s.o.Root + key), ContentLength: aws.Int64(size),
			ContentMD5: contentMD5(sum), ContentType: aws.String("application/octet-stream"), Metadata: metadata(o.Mark)}
		stored := Object{Key: key, Size: size, MD5: sum, ETag: sum, Mark: o.Mark}
		err := s.sent(ctx, key, content, sum, func(body io.Reader) (*string, error) {
			in.Body = body
			out, err := s.client.PutObject(ctx, in)
			if err != nil {
				return nil, err
			}
			return out.ETag, nil
		})
		return stored, err
	})
}

// sent sends one piece until the store says that it holds just that.
func (s *S3) sent(ctx context.Context, key string, content []byte, sum string, send func(io.Reader) (*string, error)) error {
	return s.patience.verified(ctx, func() error {
		var etag *string
		err := s.try(ctx, "put", key, func() (err error) {
			body := lend(content)
			defer body.revoke()
			etag, err = send(body)
			return err
		})
		var status *StatusError
		if errors.As(err, &status) && (status.Code == "BadDigest" || status.Code == "InvalidDigest") {
			return &ChecksumError{Key: key, Sent: sum, Held: "something else (" + status.Code + ")"}
		}
		if err != nil {
			return err
		}
		if held := strings.Trim(aws.ToString(etag), `"`); held != sum {
			return &ChecksumError{Key: key, Sent: sum, Held: held}
		}
		return nil
	})
}

// contentMD5 is a checksum as the header of that name has it: the store then refuses what was damaged on its way.
func contentMD5(sum string) *string {
	return aws.String(base64.StdEncoding.EncodeToString(bare(sum)[:md5.Size]))
}

func metadata(mark string) map[string]string {
	if mark == "" {
		return nil
	}
	return map[string]string{markName: mark}
}

// Delete implements Store.
func (s *S3) Delete(ctx context.Context, key string) error {
	in := &s3.DeleteObjectInput{Bucket: &s.o.Bucket, Key: aws.String(s.o.Root + key)}
	err := s.try(ctx, "delete", key, func() error { _, err := s.client.DeleteObject(ctx, in); return err })
	var status *StatusError
	if errors.As(err, &status) && status.Code == "NoSuchKey" {
		return nil
	}
	return err
}
