package objectstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// FilesystemOptions say which folder.
type FilesystemOptions struct {
	// Path of the folder, which need not exist yet.
	Path string
	// Root is the folder below Path that holds blobs and repositories, with a final "/"; empty is Path itself.
	Root string
}

// Filesystem is a folder. A key cannot be both a file and a folder in it: "a" and "a/b" exclude each other.
type Filesystem struct {
	path string
	tidy sync.Once
}

var _ Store = (*Filesystem)(nil)

// temporaryFolder, below the root, is where files are written before they get their name. No listing shows it.
const temporaryFolder = ".transship-tmp"

// summed is the largest file, in bytes, whose MD5 listings and Stat say: they read it for that. Links of a registry are far below.
const summed = 4 << 10

// NewFilesystem makes a store of a folder.
func NewFilesystem(o FilesystemOptions) (*Filesystem, error) {
	if !filepath.IsAbs(o.Path) {
		return nil, fmt.Errorf("the folder of a store is %q, which is no absolute path: %w", o.Path, errInvalid)
	}
	return &Filesystem{path: filepath.Join(o.Path, filepath.FromSlash(o.Root))}, nil
}

// String implements Store.
func (f *Filesystem) String() string { return "folder " + f.path }

// where gives the path of a key.
func (f *Filesystem) where(op, key string) (string, error) {
	if !fs.ValidPath(key) || key == "." || strings.ContainsRune(key, 0) || strings.HasPrefix(key+"/", temporaryFolder+"/") {
		return "", fmt.Errorf("%s of %q in %s: %w key", op, key, f, errInvalid)
	}
	return filepath.Join(f.path, filepath.FromSlash(key)), nil
}

// absent reports whether an error says that there is no such file. Below a file there is none either.
func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) || isNotFolder(err) }

func (f *Filesystem) failed(op, key string, err error) error {
	if (op == "stat" || op == "get") && absent(err) {
		err = ErrNotExist
	}
	return fmt.Errorf("%s of %q in %s: %w", op, key, f, err)
}

// Stat implements Store.
func (f *Filesystem) Stat(ctx context.Context, key string, _ ReadOptions) (Object, error) {
	file, object, err := f.open(ctx, "stat", key)
	if err != nil {
		return Object{}, err
	}
	_ = file.Close()
	return object, nil
}

func (f *Filesystem) open(ctx context.Context, op, key string) (*os.File, Object, error) {
	path, err := f.where(op, key)
	if err != nil {
		return nil, Object{}, err
	}
	if ctx.Err() != nil {
		return nil, Object{}, f.failed(op, key, context.Cause(ctx))
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, Object{}, f.failed(op, key, err)
	}
	object, err := seen(file, key)
	if err != nil {
		_ = file.Close()
		return nil, Object{}, f.failed(op, key, err)
	}
	object.Mark = mark(file)
	return file, object, nil
}

// seen says what an open file is; its offset is at the beginning after that.
func seen(file *os.File, key string) (Object, error) {
	info, err := file.Stat()
	if err != nil {
		return Object{}, err
	}
	if !info.Mode().IsRegular() {
		return Object{}, fs.ErrNotExist
	}
	object := ofFile(key, info)
	if object.Size <= summed {
		content := make([]byte, object.Size)
		if _, err := file.ReadAt(content, 0); err != nil && err != io.EOF {
			return Object{}, err
		}
		object.MD5 = md5hex(content)
	}
	return object, nil
}

func ofFile(key string, info fs.FileInfo) Object {
	return Object{Key: key, Size: info.Size(), Modified: info.ModTime(), ETag: fmt.Sprintf("%x-%x", info.ModTime().UnixNano(), info.Size())}
}

// Get implements Store. What is read is the file that was there at the call, even if it is replaced meanwhile.
func (f *Filesystem) Get(ctx context.Context, key string, o ReadOptions) (io.ReadCloser, Object, error) {
	file, object, err := f.open(ctx, "get", key)
	if err != nil {
		return nil, Object{}, err
	}
	left := max(object.Size-o.Offset, 0)
	if o.Length > 0 {
		left = min(left, o.Length)
	}
	if _, err := file.Seek(o.Offset, io.SeekStart); err != nil {
		_ = file.Close()
		return nil, Object{}, f.failed("get", key, err)
	}
	return &reader{ctx, file, left}, object, nil
}

// reader is a file of which so many bytes must come.
type reader struct {
	ctx  context.Context
	file *os.File
	left int64
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	if r.ctx.Err() != nil {
		return 0, fmt.Errorf("reading %s: %w", r.file.Name(), context.Cause(r.ctx))
	}
	n, err := r.file.Read(p[:min(int64(len(p)), r.left)])
	if r.left -= int64(n); err == io.EOF && r.left > 0 {
		err = fmt.Errorf("reading %s: %d bytes are missing: %w", r.file.Name(), r.left, io.ErrUnexpectedEOF)
	}
	return n, err
}

// Close implements io.Closer.
func (r *reader) Close() error { return r.file.Close() }

// Delete implements Store. Folders that hold nothing any more go as well: an object store has no empty ones.
func (f *Filesystem) Delete(ctx context.Context, key string) error {
	path, err := f.where("delete", key)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return f.failed("delete", key, context.Cause(ctx))
	}
	if info, err := os.Lstat(path); absent(err) || err == nil && info.IsDir() {
		return nil
	}
	if err := os.Remove(path); err != nil && !absent(err) {
		return f.failed("delete", key, err)
	}
	for folder := filepath.Dir(path); folder != f.path; folder = filepath.Dir(folder) {
		if os.Remove(folder) != nil { // not empty, or somebody else was first
			break
		}
	}
	return nil
}

// old is when a temporary file is surely nobody's any more.
const old = 48 * time.Hour
