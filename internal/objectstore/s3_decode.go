package objectstore

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// listing is a page as S3 gives it, with keys relative to the root.
type listing struct {
	objects     []Object
	directories []string
	truncated   bool
}

// listed asks for one page. The SDK's decoder takes as long for a page as the gateway does to make it (10 µs for each object), and the next page cannot be
// asked for before the last key is known: so the answer is decoded here. The rest, errors included, is the SDK's.
func (s *S3) listed(ctx context.Context, op, key string, in *s3.ListObjectsV2Input) (listing, error) {
	var page listing
	err := s.try(ctx, op, key, func() error {
		_, err := s.client.ListObjectsV2(ctx, in, s3.WithAPIOptions(func(stack *middleware.Stack) error {
			d := &decoder{page: &page, skip: len(s.o.Root)}
			var err error
			d.theirs, err = stack.Deserialize.Swap("OperationDeserializer", d)
			return err
		}))
		return err
	})
	return page, err
}

// decoder takes the place of the SDK's decoder of listings.
type decoder struct {
	page   *listing
	skip   int
	theirs middleware.DeserializeMiddleware
}

// ID implements middleware.DeserializeMiddleware.
func (d *decoder) ID() string { return "OperationDeserializer" }

// HandleDeserialize implements middleware.DeserializeMiddleware.
func (d *decoder) HandleDeserialize(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
	out, metadata, err := next.HandleDeserialize(ctx, in)
	answer, ok := out.RawResponse.(*smithyhttp.Response)
	if err != nil || !ok || answer.StatusCode != http.StatusOK {
		return d.theirs.HandleDeserialize(ctx, in, middleware.DeserializeHandlerFunc(func(context.Context, middleware.DeserializeInput) (middleware.DeserializeOutput, middleware.Metadata, error) {
			return out, metadata, err
		}))
	}
	body := bytes.NewBuffer(make([]byte, 0, 512<<10))
	if _, err := body.ReadFrom(answer.Body); err != nil {
		return out, metadata, &brokenError{fmt.Errorf("reading a listing: %w", err)}
	}
	*d.page, err = readListing(body.Bytes(), d.skip)
	out.Result = &s3.ListObjectsV2Output{}
	return out, metadata, err
}

var errNoListing = errors.New("the answer is no listing")

// readListing decodes a ListBucketResult, whose elements have neither attributes nor anything but text in the fields that matter.
func readListing(content []byte, skip int) (listing, error) {
	var l listing
	if !bytes.Contains(content[:min(len(content), 400)], []byte("<ListBucketResult")) || !bytes.HasSuffix(bytes.TrimSpace(content), []byte("</ListBucketResult>")) {
		return l, fmt.Errorf("%w: %.100q", errNoListing, content)
	}
	l.objects = make([]Object, 0, 1000)
	rest := content
	for {
		// What stands between two objects are the fields of the listing itself, and directories.
		before, after, found := bytes.Cut(rest, []byte("<Contents>"))
		if err := l.outer(before, skip); err != nil || !found {
			return l, err
		}
		fields, remainder, closed := bytes.Cut(after, []byte("</Contents>"))
		if !closed {
			return l, fmt.Errorf("%w: an object does not end", errNoListing)
		}
		rest = remainder
		o, err := readContents(fields, skip)
		if err != nil {
			return l, err
		}
		l.objects = append(l.objects, o)
	}
}

// outer reads what is not an object.
func (l *listing) outer(fields []byte, skip int) error {
	if truncated, ok := element(fields, "<IsTruncated>"); ok {
		l.truncated = string(truncated) == "true"
	}
	for {
		_, after, found := bytes.Cut(fields, []byte("<CommonPrefixes>"))
		if !found {
			return nil
		}
		directory, _ := element(after, "<Prefix>")
		name, err := text(directory)
		if err != nil || len(name) < skip {
			return fmt.Errorf("%w: directory %q", errNoListing, directory)
		}
		l.directories = append(l.directories, name[skip:])
		fields = after
	}
}

func readContents(fields []byte, skip int) (Object, error) {
	key, _ := element(fields, "<Key>")
	etag, _ := element(fields, "<ETag>")
	size, _ := element(fields, "<Size>")
	modified, _ := element(fields, "<LastModified>")
	name, err := text(key)
	if err != nil || len(name) <= skip {
		return Object{}, fmt.Errorf("%w: key %q", errNoListing, key)
	}
	o := Object{Key: name[skip:]}
	if o.Size, err = strconv.ParseInt(string(size), 10, 64); err != nil {
		return o, fmt.Errorf("%w: size of %q: %w", errNoListing, key, err)
	}
	if o.Modified, err = time.Parse(time.RFC3339Nano, string(modified)); err != nil {
		return o, fmt.Errorf("%w: time of %q: %w", errNoListing, key, err)
	}
	tag, err := text(etag)
	fromETag(&o, &tag)
	return o, err
}

// element gives what stands in the first element of that name.
func element(fields []byte, open string) ([]byte, bool) {
	at := bytes.Index(fields, []byte(open))
	if at < 0 {
		return nil, false
	}
	value := fields[at+len(open):]
	if end := bytes.IndexByte(value, '<'); end >= 0 {
		return value[:end], true
	}
	return nil, false
}

// text resolves the entities of XML.
func text(raw []byte) (string, error) {
	if bytes.IndexByte(raw, '&') < 0 {
		return string(raw), nil
	}
	if quoted, ok := bytes.CutPrefix(raw, []byte("&quot;")); ok { // an ETag: the usual case, cheaply
		if quoted, ok = bytes.CutSuffix(quoted, []byte("&quot;")); ok && bytes.IndexByte(quoted, '&') < 0 {
			return string(quoted), nil
		}
	}
	var out strings.Builder
	in := xml.NewDecoder(bytes.NewReader(raw))
	for {
		switch token, err := in.RawToken(); {
		case err == io.EOF:
			return out.String(), nil
		case err != nil:
			return "", fmt.Errorf("resolving %q: %w", raw, err)
		default:
			if piece, ok := token.(xml.CharData); ok {
				out.Write(piece)
			}
		}
	}
}
