package siteconf

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Build is what `nginx -V` says of an nginx.
type Build struct {
	Version   [3]int
	arguments string
}

// oldest is the first nginx that has all that the generated files use: log_format's escape=json came last
// (https://nginx.org/en/docs/http/ngx_http_log_module.html#log_format).
var oldest = [3]int{1, 11, 8}

var version = regexp.MustCompile(`nginx version: [^/\s]+/(\d+)\.(\d+)\.(\d+)`)

// ErrBuild says that something is not the output of `nginx -V`.
var ErrBuild = errors.New("this is not what nginx -V prints")

// ReadBuild takes what `nginx -V` prints.
func ReadBuild(output string) (Build, error) {
	found := version.FindStringSubmatch(output)
	_, arguments, ok := strings.Cut(output, "configure arguments:")
	if found == nil || !ok {
		return Build{}, fmt.Errorf("%w: %.200q", ErrBuild, output)
	}
	b := Build{arguments: arguments}
	for i := range b.Version {
		b.Version[i], _ = strconv.Atoi(found[i+1]) // digits, as matched
	}
	return b, nil
}

// Has tells whether nginx was built with a module, such as http_auth_request_module.
func (b Build) Has(module string) bool {
	return strings.Contains(b.arguments+" ", "--with-"+module+" ") || strings.Contains(b.arguments, "--with-"+module+"=dynamic")
}

// Faults are what this nginx lacks. tls says that a backend is reached by TLS. They have no place.
func (b Build) Faults(tls bool) (faults []Fault) {
	if older(b.Version, oldest) {
		faults = append(faults, Fault{What: "nginx is " + dotted(b.Version), Cure: "install nginx " + dotted(oldest) + " or newer"})
	}
	need := func(module, what string) {
		if !b.Has(module) {
			faults = append(faults, Fault{What: "nginx was built without " + module + ", " + what, Cure: "install an nginx built --with-" + module})
		}
	}
	need("http_auth_request_module", "by which writes are held")
	if tls {
		need("http_ssl_module", "and a backend is reached by TLS")
	}
	return faults
}

func older(a, b [3]int) bool {
	for i := range a {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}

func dotted(v [3]int) string { return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]) }
