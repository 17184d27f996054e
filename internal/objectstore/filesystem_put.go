package objectstore

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Put implements Store. The file gets its name when all of it is on the disk.
func (f *Filesystem) Put(ctx context.Context, key string, body io.Reader, size int64, o PutOptions) (Object, error) {
	path, err := f.where("put", key)
	if err != nil {
		return Object{}, err
	}
	file, err := f.temporary()
	if err != nil {
		return Object{}, f.failed("put", key, err)
	}
	defer func() {
		_ = file.Close()
		_ = os.Remove(file.Name()) // when it still has that name
	}()
	sum, err := written(ctx, file, &source{key: key, body: body, size: size})
	if err != nil {
		return Object{}, err
	}
	if err := setMark(file, o.Mark); err != nil {
		return Object{}, f.failed("put", key, err)
	}
	if err := file.Sync(); err != nil {
		return Object{}, f.failed("put", key, err)
	}
	info, err := file.Stat()
	if err != nil {
		return Object{}, f.failed("put", key, err)
	}
	if info.Size() != size {
		return Object{}, &ChecksumError{Key: key, Sent: fmt.Sprint(size, " bytes"), Held: fmt.Sprint(info.Size(), " bytes")}
	}
	if err := f.named(file.Name(), path); err != nil {
		return Object{}, f.failed("put", key, err)
	}
	object := ofFile(key, info)
	object.MD5, object.Mark = sum, mark(file)
	return object, nil
}

// written copies a body, to its good end, and gives its MD5.
func written(ctx context.Context, file *os.File, from *source) (string, error) {
	sum := md5.New()
	piece := make([]byte, 256<<10)
	for {
		n, err := from.Read(piece)
		if err != nil && err != io.EOF {
			return "", err
		}
		if ctx.Err() != nil {
			return "", fmt.Errorf("storing %q: %w", from.key, context.Cause(ctx))
		}
		sum.Write(piece[:n])
		if _, err := file.Write(piece[:n]); err != nil {
			return "", fmt.Errorf("storing %q: %w", from.key, err)
		}
		if err == io.EOF {
			return hex.EncodeToString(sum.Sum(nil)), nil
		}
	}
}

// temporary makes a file without a name that anybody sees. It is on the same filesystem as the root, or it could not be renamed.
func (f *Filesystem) temporary() (*os.File, error) {
	folder := filepath.Join(f.path, temporaryFolder)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	f.tidy.Do(func() { tidy(folder) })
	file, err := os.CreateTemp(folder, "put-")
	if err != nil {
		return nil, err
	}
	return file, file.Chmod(0o644)
}

// tidy removes what processes left that were killed.
func tidy(folder string) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > old {
			_ = os.Remove(filepath.Join(folder, e.Name()))
		}
	}
}

// named gives a file its name, for good. A Delete beside it may remove the folder that we just made: then once more.
func (f *Filesystem) named(from, path string) error {
	for tries := 0; ; tries++ {
		if err := folders(filepath.Dir(path)); err != nil && (!absent(err) || isNotFolder(err)) {
			return &fs.PathError{Op: "mkdir", Path: filepath.Dir(path), Err: err}
		}
		err := os.Rename(from, path)
		if err == nil {
			break
		}
		if !absent(err) || isNotFolder(err) || tries == 100 {
			return err
		}
	}
	return synced(filepath.Dir(path))
}

// folders makes a folder and those above it, for good.
func folders(path string) error {
	err := os.Mkdir(path, 0o755)
	if absent(err) && !isNotFolder(err) {
		if err := folders(filepath.Dir(path)); err != nil {
			return err
		}
		err = os.Mkdir(path, 0o755)
	}
	if os.IsExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return synced(filepath.Dir(path))
}

// synced makes what was named in a folder survive a power cut.
func synced(folder string) error {
	d, err := os.Open(folder)
	if absent(err) {
		return nil // a Delete beside us removed it: so it held nothing of ours
	}
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return d.Sync()
}
