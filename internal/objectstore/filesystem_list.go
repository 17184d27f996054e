package objectstore

import (
	"context"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// List implements Store. In memory are the names of the folders on the way to the present object.
func (f *Filesystem) List(ctx context.Context, o ListOptions) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		w := &walk{f: f, ctx: ctx, o: o, yield: yield}
		// Nothing outside the folder that the prefix names can begin with it.
		w.folder(o.Prefix[:strings.LastIndexByte(o.Prefix, '/')+1])
	}
}

// walk is one listing under way.
type walk struct {
	f     *Filesystem
	ctx   context.Context
	o     ListOptions
	yield func(Object, error) bool
	n     int
}

// name is an entry of a folder. Folders end in "/": that puts "a-b" before "a/b", as the bytes of keys have it, other than the order of names in a folder.
type name struct {
	key    string
	folder bool
}

// folder lists what lies below key, which ends in "/" or is empty. It reports whether to go on.
func (w *walk) folder(key string) bool {
	names, err := w.f.names(key)
	if err != nil {
		w.yield(Object{}, w.f.failed("list", key, err))
		return false
	}
	for _, n := range names {
		switch {
		case w.ctx.Err() != nil:
			w.yield(Object{}, w.f.failed("list", w.o.Prefix, context.Cause(w.ctx)))
			return false
		case w.o.Before != "" && n.key >= w.o.Before || w.o.Limit > 0 && w.n == w.o.Limit:
			return false
		case n.folder:
			within := strings.HasPrefix(n.key, w.o.Prefix) || strings.HasPrefix(w.o.Prefix, n.key)
			passed := n.key <= w.o.After && !strings.HasPrefix(w.o.After, n.key)
			if within && !passed && !w.folder(n.key) {
				return false
			}
		case n.key > w.o.After && strings.HasPrefix(n.key, w.o.Prefix):
			if !w.file(n.key) {
				return false
			}
		}
	}
	return true
}

func (w *walk) file(key string) bool {
	object, err := w.f.listed(key)
	if absent(err) {
		return true // it was there a moment ago
	}
	if err != nil {
		w.yield(Object{}, w.f.failed("list", key, err))
		return false
	}
	w.n++
	return w.yield(object, nil)
}

// listed is what a listing says of a file: it is opened only when its MD5 is wanted.
func (f *Filesystem) listed(key string) (Object, error) {
	path := filepath.Join(f.path, filepath.FromSlash(key))
	info, err := os.Stat(path)
	if err != nil {
		return Object{}, err
	}
	if info.Size() > summed {
		return ofFile(key, info), nil
	}
	file, err := os.Open(path)
	if err != nil {
		return Object{}, err
	}
	defer func() { _ = file.Close() }()
	return seen(file, key)
}

// names are the entries of a folder in the order of keys; none when there is no such folder.
func (f *Filesystem) names(key string) ([]name, error) {
	path := filepath.Join(f.path, filepath.FromSlash(key))
	entries, err := os.ReadDir(path)
	if absent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names := make([]name, 0, len(entries))
	for _, e := range entries {
		n := name{key + e.Name(), e.IsDir()}
		if e.Type()&fs.ModeSymlink != 0 {
			// "blobs" may well be a link to another disk.
			info, err := os.Stat(filepath.Join(path, e.Name()))
			n.folder = err == nil && info.IsDir()
		}
		if n.folder {
			n.key += "/"
		}
		if n.key != temporaryFolder+"/" && (n.folder || e.Type().IsRegular() || e.Type()&fs.ModeSymlink != 0) {
			names = append(names, n)
		}
	}
	slices.SortFunc(names, func(a, b name) int { return strings.Compare(a.key, b.key) })
	return names, nil
}

// Directories implements Store.
func (f *Filesystem) Directories(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		names, err := f.names(prefix)
		if err != nil {
			yield("", f.failed("directories", prefix, err))
			return
		}
		for _, n := range names {
			if !n.folder {
				continue
			}
			for _, err := range f.List(ctx, ListOptions{Prefix: n.key, Limit: 1}) {
				if !yield(n.key, err) || err != nil {
					return
				}
			}
		}
	}
}
