package objectstore

import (
	"context"
	"iter"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// List implements Store.
func (s *S3) List(ctx context.Context, o ListOptions) iter.Seq2[Object, error] {
	return paged(ctx, o.After, func(ctx context.Context, after string, seen int) (p page[Object]) {
		limit := s.o.PageSize
		if o.Limit > 0 {
			limit = min(limit, o.Limit-seen)
		}
		in := &s3.ListObjectsV2Input{Bucket: &s.o.Bucket, Prefix: aws.String(s.o.Root + o.Prefix), MaxKeys: aws.Int32(int32(limit))}
		if after != "" {
			in.StartAfter = aws.String(s.o.Root + after)
		}
		var out *s3.ListObjectsV2Output
		err := s.try(ctx, "list", o.Prefix, func() (err error) { out, err = s.client.ListObjectsV2(ctx, in); return err })
		if err != nil {
			return page[Object]{err: err}
		}
		p.items = make([]Object, 0, len(out.Contents))
		for _, c := range out.Contents {
			object := Object{Key: (*c.Key)[len(s.o.Root):], Size: aws.ToInt64(c.Size), Modified: aws.ToTime(c.LastModified)}
			if o.Before != "" && object.Key >= o.Before {
				return p
			}
			fromETag(&object, c.ETag)
			p.items = append(p.items, object)
		}
		if seen += len(p.items); aws.ToBool(out.IsTruncated) && len(p.items) > 0 && (o.Limit == 0 || seen < o.Limit) {
			p.next = p.items[len(p.items)-1].Key
		}
		return p
	})
}

// Directories implements Store.
func (s *S3) Directories(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return paged(ctx, "", func(ctx context.Context, after string, _ int) (p page[string]) {
		in := &s3.ListObjectsV2Input{Bucket: &s.o.Bucket, Prefix: aws.String(s.o.Root + prefix), Delimiter: aws.String("/"), MaxKeys: aws.Int32(int32(s.o.PageSize))}
		if after != "" {
			// Behind all that lies in that directory: some stores show a directory again whose keys are greater than its name.
			in.StartAfter = aws.String(s.o.Root + strings.TrimSuffix(after, "/") + "0")
			if !strings.HasSuffix(after, "/") {
				in.StartAfter = aws.String(s.o.Root + after)
			}
		}
		var out *s3.ListObjectsV2Output
		err := s.try(ctx, "directories", prefix, func() (err error) { out, err = s.client.ListObjectsV2(ctx, in); return err })
		if err != nil {
			return page[string]{err: err}
		}
		last := ""
		for _, c := range out.Contents {
			last = max(last, (*c.Key)[len(s.o.Root):])
		}
		for _, c := range out.CommonPrefixes {
			directory := (*c.Prefix)[len(s.o.Root):]
			p.items = append(p.items, directory)
			last = max(last, directory)
		}
		if aws.ToBool(out.IsTruncated) {
			p.next = last
		}
		return p
	})
}
