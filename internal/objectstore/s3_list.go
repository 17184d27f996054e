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
		listed, err := s.listed(ctx, "list", o.Prefix, in)
		if err != nil {
			return page[Object]{err: err}
		}
		p.items = listed.objects
		for i, object := range p.items {
			if o.Before != "" && object.Key >= o.Before {
				p.items = p.items[:i]
				return p
			}
		}
		if seen += len(p.items); listed.truncated && len(p.items) > 0 && (o.Limit == 0 || seen < o.Limit) {
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
			in.StartAfter = aws.String(s.o.Root + after)
			if directory, is := strings.CutSuffix(after, "/"); is {
				// Behind all that lies in it ("0" follows "/"): a directory whose keys are greater than its name would be shown again.
				in.StartAfter = aws.String(s.o.Root + directory + "0")
			}
		}
		listed, err := s.listed(ctx, "directories", prefix, in)
		if err != nil {
			return page[string]{err: err}
		}
		p.items = listed.directories
		if listed.truncated {
			for _, object := range listed.objects {
				p.next = max(p.next, object.Key)
			}
			for _, directory := range listed.directories {
				p.next = max(p.next, directory)
			}
		}
		return p
	})
}
