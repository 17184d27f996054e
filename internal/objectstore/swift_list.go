package objectstore

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/mailru/easyjson/jlexer"
)

// List implements Store.
func (s *Swift) List(ctx context.Context, o ListOptions) iter.Seq2[Object, error] {
	return s.list(ctx, s.o.Container, s.o.Root, o)
}

// list yields the objects of a container below root.
func (s *Swift) list(ctx context.Context, container, root string, o ListOptions) iter.Seq2[Object, error] {
	return paged(ctx, o.After, func(ctx context.Context, after string, seen int) (p page[Object]) {
		query := url.Values{"prefix": {root + o.Prefix}}
		if o.Before != "" {
			query.Set("end_marker", root+o.Before)
		}
		entries, full, err := s.page(ctx, container, query, root, after, remaining(o.Limit, seen))
		if err != nil {
			return page[Object]{err: err}
		}
		p.items = make([]Object, 0, len(entries))
		for i := range entries {
			p.items = append(p.items, entries[i].object(len(root)))
		}
		if seen += len(p.items); full && (o.Limit == 0 || seen < o.Limit) {
			p.next = p.items[len(p.items)-1].Key
		}
		return p
	})
}

// remaining is how many of limit are still wanted; 0 is all.
func remaining(limit, seen int) int {
	if limit == 0 {
		return 0
	}
	return limit - seen
}

// Directories implements Store.
func (s *Swift) Directories(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return paged(ctx, "", func(ctx context.Context, after string, _ int) (p page[string]) {
		query := url.Values{"prefix": {s.o.Root + prefix}, "delimiter": {"/"}}
		entries, full, err := s.page(ctx, s.o.Container, query, s.o.Root, after, 0)
		if err != nil {
			return page[string]{err: err}
		}
		for _, e := range entries {
			if e.Directory != "" {
				p.items = append(p.items, e.Directory[len(s.o.Root):])
			}
		}
		if full {
			last := entries[len(entries)-1]
			p.next = (last.Name + last.Directory)[len(s.o.Root):]
		}
		return p
	})
}

// page asks for one page; want 0 is as many as the store gives. full says that more may follow.
func (s *Swift) page(ctx context.Context, container string, query url.Values, root, after string, want int) (entries []entry, full bool, err error) {
	var limit int
	if err = s.patience.try(ctx, func() (err error) { limit, err = s.pageLimit(ctx); return err }); err != nil {
		return nil, false, err
	}
	if want > 0 {
		limit = min(limit, want)
	}
	query.Set("format", "json")
	query.Set("limit", strconv.Itoa(limit))
	if after != "" {
		query.Set("marker", root+after)
	}
	content, err := s.read(ctx, request{op: "list", method: http.MethodGet, container: container, query: query})
	if err != nil {
		return nil, false, err
	}
	if entries, err = readEntries(content, limit); err != nil {
		return nil, false, fmt.Errorf("listing %s: what it wrote is no listing: %w", s, err)
	}
	return entries, len(entries) == limit, nil
}

// entry is one line of a listing, or of a manifest.
type entry struct {
	Name, Hash string
	Bytes      int64
	Modified   time.Time
	// StaticTag is the ETag of a Static Large Object, whose Hash is that of its manifest.
	StaticTag string
	// Directory is what a listing with a delimiter shows instead of all that lies below.
	Directory string
}

// readEntries decodes a listing. jlexer takes a seventh of the time of encoding/json: a page of 10,000 objects in 3 ms, beside the 100 that Swift needs for
// it, and the next page cannot be asked for before the last name is known.
func readEntries(content []byte, expected int) ([]entry, error) {
	entries := make([]entry, 0, min(expected, len(content)/128+1))
	in := jlexer.Lexer{Data: content}
	for in.Delim('['); !in.IsDelim(']'); in.WantComma() {
		var e entry
		for in.Delim('{'); !in.IsDelim('}'); in.WantComma() {
			field := in.UnsafeFieldName(false)
			in.WantColon()
			switch field {
			case "name":
				e.Name = in.String()
			case "hash":
				e.Hash = in.String()
			case "bytes":
				e.Bytes = in.Int64()
			case "last_modified":
				e.Modified, _ = time.Parse("2006-01-02T15:04:05.999999", in.UnsafeString())
			case "slo_etag":
				e.StaticTag = strings.Trim(in.String(), `"`)
			case "subdir":
				e.Directory = in.String()
			default:
				in.SkipRecursive()
			}
		}
		in.Delim('}')
		entries = append(entries, e)
	}
	in.Delim(']')
	in.Consumed()
	return entries, in.Error()
}

// object is what an entry says, with a key without the first skip bytes.
func (e *entry) object(skip int) Object {
	o := Object{Key: e.Name[skip:], Size: e.Bytes, MD5: e.Hash, ETag: e.Hash, Modified: e.Modified}
	if e.StaticTag != "" {
		o.MD5, o.ETag, o.Parts = "", e.StaticTag, Static
	}
	return o
}
