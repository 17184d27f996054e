package objectstore

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// markAttribute is the extended attribute that keeps the mark.
const markAttribute = "user.transship.mark"

// setMark keeps a mark with a file, where its filesystem can.
func setMark(file *os.File, mark string) error {
	if mark == "" {
		return nil
	}
	err := unix.Fsetxattr(int(file.Fd()), markAttribute, []byte(mark), 0)
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) {
		return nil
	}
	return err
}

// mark reads it; empty when there is none.
func mark(file *os.File) string {
	var value [1024]byte
	n, err := unix.Fgetxattr(int(file.Fd()), markAttribute, value[:])
	if err != nil {
		return ""
	}
	return string(value[:n])
}

// isNotFolder reports whether a path leads through a file.
func isNotFolder(err error) bool { return errors.Is(err, unix.ENOTDIR) }
