package objectstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// mostParts is how many parts a multipart upload may have.
const mostParts = 10000

// upload is one multipart upload of one key.
type upload struct {
	s    *S3
	key  string
	mark string
	// ready is closed when the rest is known.
	ready   chan struct{}
	id      string
	resumed bool
	there   map[int]part
	gone    atomic.Bool
}

// putLarge stores an object by a multipart upload; one that another process left unfinished goes on where it was.
func (s *S3) putLarge(ctx context.Context, from *source, o PutOptions) (Object, error) {
	u := &upload{s: s, key: from.key, mark: o.Mark, ready: make(chan struct{})}
	parts, err := inParts(ctx, s.buffers, from, partFor(from.size, mostParts), u.store)
	if err == nil && !u.gone.Load() {
		err = u.complete(ctx, parts)
	}
	if from.failed() && ctx.Err() == nil && u.id != "" {
		// Nobody will go on with this. What failed otherwise stays, to be gone on with.
		return Object{}, errors.Join(err, u.abort(ctx))
	}
	want := partsETag(parts, bare) + fmt.Sprintf("-%d", len(parts))
	gone := u.gone.Load() || over(err)
	if err != nil && !gone {
		return Object{}, err
	}
	stored, statErr := s.Stat(ctx, from.key, ReadOptions{})
	switch {
	case gone && (errors.Is(statErr, ErrNotExist) || statErr == nil && stored.ETag != want):
		// A new attempt begins a new upload.
		return Object{}, fmt.Errorf("putting %q in %s: %w", from.key, s, &brokenError{errEnded})
	case statErr != nil:
		return Object{}, statErr
	case stored.ETag != want || stored.Size != from.size:
		return Object{}, &ChecksumError{Key: from.key, Sent: want, Held: stored.ETag}
	case u.resumed && stored.Mark != o.Mark && stored.Size <= mostCopied:
		return u.remark(ctx, stored)
	}
	return stored, nil
}

var errEnded = errors.New("somebody else ended the upload, and not with what was sent")

// over reports whether an upload was completed or aborted by somebody else: another worker that stores the same, or an earlier attempt of ours whose
// answer got lost.
func over(err error) bool {
	var status *StatusError
	return errors.As(err, &status) && status.Code == "NoSuchUpload"
}

// store sends one part, unless it is there.
func (u *upload) store(ctx context.Context, p part, content []byte) error {
	if p.number == 0 {
		if err := u.begin(ctx, p); err != nil {
			return err
		}
		close(u.ready)
	}
	select {
	case <-u.ready:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if u.there[p.number] == p || u.gone.Load() {
		return nil
	}
	in := &s3.UploadPartInput{Bucket: &u.s.o.Bucket, Key: aws.String(u.s.o.Root + u.key), UploadId: &u.id, PartNumber: aws.Int32(int32(p.number + 1)),
		ContentLength: aws.Int64(p.size), ContentMD5: contentMD5(p.md5)}
	err := u.s.sent(ctx, u.key, content, p.md5, func(body io.Reader) (*string, error) {
		in := *in
		in.Body = body
		out, err := u.s.client.UploadPart(ctx, &in)
		if err != nil {
			return nil, err
		}
		return out.ETag, nil
	})
	if over(err) {
		// What becomes of it is seen at the end: until then the body is read on, for its checksum.
		u.gone.Store(true)
		return nil
	}
	return err
}

// begin finds an unfinished upload of the same content, by its first part, or begins one.
func (u *upload) begin(ctx context.Context, first part) error {
	in := &s3.ListMultipartUploadsInput{Bucket: &u.s.o.Bucket, Prefix: aws.String(u.s.o.Root + u.key)}
	var out *s3.ListMultipartUploadsOutput
	err := u.s.try(ctx, "put", u.key, func() (err error) { out, err = u.s.client.ListMultipartUploads(ctx, in); return err })
	if err != nil {
		return err
	}
	for _, found := range out.Uploads {
		if aws.ToString(found.Key) != u.s.o.Root+u.key {
			continue
		}
		there, err := u.parts(ctx, found.UploadId)
		if err != nil {
			return err
		}
		if there[0] == first {
			u.id, u.there, u.resumed = *found.UploadId, there, true
			return nil
		}
	}
	create := &s3.CreateMultipartUploadInput{Bucket: &u.s.o.Bucket, Key: aws.String(u.s.o.Root + u.key), Metadata: metadata(u.mark), ContentType: aws.String("application/octet-stream")}
	return u.s.try(ctx, "put", u.key, func() error {
		out, err := u.s.client.CreateMultipartUpload(ctx, create)
		if err == nil {
			u.id = *out.UploadId
		}
		return err
	})
}

// parts lists what an upload holds by now; nothing when it is over meanwhile.
func (u *upload) parts(ctx context.Context, id *string) (map[int]part, error) {
	there := map[int]part{}
	in := &s3.ListPartsInput{Bucket: &u.s.o.Bucket, Key: aws.String(u.s.o.Root + u.key), UploadId: id}
	for {
		var out *s3.ListPartsOutput
		err := u.s.try(ctx, "put", u.key, func() (err error) { out, err = u.s.client.ListParts(ctx, in); return err })
		if over(err) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		for _, p := range out.Parts {
			n := int(aws.ToInt32(p.PartNumber)) - 1
			there[n] = part{number: n, size: aws.ToInt64(p.Size), md5: strings.Trim(aws.ToString(p.ETag), `"`)}
		}
		if !aws.ToBool(out.IsTruncated) || len(out.Parts) == 0 {
			return there, nil
		}
		in.PartNumberMarker = out.NextPartNumberMarker
	}
}

func (u *upload) complete(ctx context.Context, parts []part) error {
	done := make([]types.CompletedPart, len(parts))
	for i, p := range parts {
		done[i] = types.CompletedPart{PartNumber: aws.Int32(int32(p.number + 1)), ETag: aws.String(`"` + p.md5 + `"`)}
	}
	in := &s3.CompleteMultipartUploadInput{Bucket: &u.s.o.Bucket, Key: aws.String(u.s.o.Root + u.key), UploadId: &u.id, MultipartUpload: &types.CompletedMultipartUpload{Parts: slices.Clip(done)}}
	return u.s.try(ctx, "put", u.key, func() error {
		_, err := u.s.client.CompleteMultipartUpload(patiently(ctx, slow), in)
		return err
	})
}

func (u *upload) abort(ctx context.Context) error {
	in := &s3.AbortMultipartUploadInput{Bucket: &u.s.o.Bucket, Key: aws.String(u.s.o.Root + u.key), UploadId: &u.id}
	err := u.s.try(ctx, "put", u.key, func() error { _, err := u.s.client.AbortMultipartUpload(ctx, in); return err })
	if over(err) {
		return nil
	}
	return err
}

// mostCopied is the largest object that S3 copies by one request.
const mostCopied = 5 << 30

// remark gives an object our mark when the upload had been begun with another: marks are said at the beginning.
func (u *upload) remark(ctx context.Context, stored Object) (Object, error) {
	in := &s3.CopyObjectInput{Bucket: &u.s.o.Bucket, Key: aws.String(u.s.o.Root + u.key), CopySource: aws.String((&url.URL{Path: u.s.o.Bucket + "/" + u.s.o.Root + u.key}).EscapedPath()),
		CopySourceIfMatch: aws.String(`"` + stored.ETag + `"`), MetadataDirective: types.MetadataDirectiveReplace, Metadata: metadata(u.mark), ContentType: aws.String("application/octet-stream")}
	err := u.s.try(ctx, "put", u.key, func() error {
		_, err := u.s.client.CopyObject(patiently(ctx, slow), in)
		return err
	})
	if err != nil {
		return Object{}, err
	}
	return u.s.Stat(ctx, u.key, ReadOptions{})
}
