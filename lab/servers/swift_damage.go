package servers

import (
	"bufio"
	"context"
	"crypto/md5" //nolint:gosec // how Swift names what it stores
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// ObjectFiles are the files on disk that hold an object: where a test damages it.
func (s *Swift) ObjectFiles(container, object string) ([]string, error) {
	pattern := filepath.Join(s.Dir, "srv/d1/objects/*/*", swiftHash(container, object), "*.data")
	found, err := filepath.Glob(pattern)
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("%s/%s: no file matches %s: %w", container, object, pattern, os.ErrNotExist)
	}
	return found, err
}

// Unlist takes an object out of the listing of its container, as if the container server had never been told of it. The object stays.
func (s *Swift) Unlist(ctx context.Context, container, object string) error {
	pattern := filepath.Join(s.Dir, "srv/d1/containers/*/*", swiftHash(container))
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) != 1 {
		return fmt.Errorf("%s: %d folders match %s: %w", container, len(found), pattern, os.ErrNotExist)
	}
	partition := filepath.Base(filepath.Dir(filepath.Dir(found[0])))
	port, err := s.portOf("container")
	if err != nil {
		return err
	}
	where := (&url.URL{Scheme: "http", Host: "127.0.0.1:" + port, Path: "/d1/" + partition + "/" + swiftAccount + "/" + container + "/" + object}).String()
	_, err = request(ctx, http.MethodDelete, where, map[string]string{"X-Timestamp": fmt.Sprintf("%.5f", float64(time.Now().UnixMicro())/1e6)})
	return err
}

// portOf is where a daemon listens, by its configuration: the processes may be those of another program.
func (s *Swift) portOf(kind string) (string, error) {
	f, err := os.Open(filepath.Join(s.Dir, "etc", kind+".conf"))
	if err != nil {
		return "", err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if port, ok := strings.CutPrefix(lines.Text(), "bind_port = "); ok {
			return port, nil
		}
	}
	return "", fmt.Errorf("%s has no bind_port: %w", f.Name(), os.ErrNotExist)
}

// swiftHash is the folder that holds a container or an object.
func swiftHash(path ...string) string {
	sum := md5.Sum([]byte(swiftHashPrefix + "/" + swiftAccount + "/" + strings.Join(path, "/") + swiftHashSuffix)) //nolint:gosec // see the import
	return hex.EncodeToString(sum[:])
}
