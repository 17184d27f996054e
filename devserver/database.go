package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"syscall"

	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/persistence/sql/sqlplugin/sqlite"
	sqliteschema "go.temporal.io/server/schema/sqlite"
)

// database is a SQLite file with Temporal's schema that this process alone uses.
type database struct {
	path string
	lock *os.File
}

// openDatabase takes the file at path for this process, creating it with Temporal's schema when it is missing. The schema of
// an older Temporal is not upgraded: a release that changes it needs a new file.
func openDatabase(path string) (*database, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("create the folder of database %s: %w", path, err)
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, fmt.Errorf("take database %s: %w", path, err)
	}
	db := &database{path: path, lock: lock}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		err = createSchema(path)
		if err != nil {
			return nil, errors.Join(err, db.Close())
		}
	} else if err != nil {
		return nil, errors.Join(fmt.Errorf("look at database %s: %w", path, err), db.Close())
	}
	return db, nil
}

// Close gives the file free for another process. Temporal itself never closes its connection before the process ends.
func (d *database) Close() error {
	if err := d.lock.Close(); err != nil {
		return fmt.Errorf("unlock database %s: %w", d.path, err)
	}
	return nil
}

// sql says how Temporal connects. A write-ahead log synced at every commit is what keeps an acknowledged step through kill -9
// and through a loss of power, at one sync a commit.
func (d *database) sql() *config.SQL {
	return &config.SQL{
		PluginName:   sqlite.PluginName,
		DatabaseName: uriPath(d.path),
		ConnectAttributes: map[string]string{
			"mode":         "rw",
			"journal_mode": "wal",
			"synchronous":  "full",
			"busy_timeout": "10000",
		},
	}
}

// createSchema makes the file under another name first: killed half way, it must not leave a file with half a schema.
func createSchema(path string) error {
	draft := path + ".new"
	for _, leftover := range []string{draft, draft + "-journal"} {
		if err := os.Remove(leftover); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove what an interrupted start left: %w", err)
		}
	}
	err := sqliteschema.SetupSchema(&config.SQL{
		PluginName:        sqlite.PluginName,
		DatabaseName:      uriPath(draft),
		ConnectAttributes: map[string]string{"mode": "rwc"},
	})
	if err != nil {
		return fmt.Errorf("create Temporal's schema in %s: %w", draft, err)
	}
	if err := os.Rename(draft, path); err != nil {
		return fmt.Errorf("put the new database in place: %w", err)
	}
	return nil
}

// lockFile takes an advisory lock that the kernel drops with the process, however that ends.
func lockFile(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("another transship-devserver is using it (lock %s)", path)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return file, nil
}

// uriPath is a path as Temporal's SQLite plugin must be given it: it makes a URI of it, "file:PATH?…", in which # and ? would end the path (https://www.sqlite.org/uri.html).
func uriPath(path string) string { return (&url.URL{Path: path}).EscapedPath() }
