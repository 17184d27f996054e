// Package siteconf reads the nginx configuration of a site, as `nginx -T` shows it, and finds what keeps transship from routing and holding what
// it should: each fault with its place in the site's files and the line that cures it. It changes nothing, and knows nothing of edges.
package siteconf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	crossplane "github.com/nginxinc/nginx-go-crossplane"
)

// Generated are the names of our own files, which a site includes. Nothing in them is ever a fault.
type Generated struct {
	// Directory is where they are.
	Directory string
	// HTTP, Server and Location are the files for these blocks.
	HTTP, Server, Location string
}

// Fault is one thing to mend.
type Fault struct {
	File string
	Line int
	// What is wrong, Cure what to write.
	What, Cure string
	// Warning says that it does no harm to the prefixes that were named.
	Warning bool
}

// Where is the place of the fault as file:line.
func (f Fault) Where() string { return fmt.Sprintf("%s:%d", f.File, f.Line) }

// ErrDump says that something is not the output of `nginx -T`.
var ErrDump = errors.New("this is not what nginx -T prints")

// Site is a configuration of nginx with all its includes.
type Site struct {
	root      *block
	generated Generated
	// maps has the map blocks by the variable that they set.
	maps map[string][]*block
}

// block is a directive where it takes effect: what a file holds is in the block that includes it.
type block struct {
	name string
	args []string
	file string
	line int
	in   *block
	body []*block
}

// marker begins each file in the output of `nginx -T` (ngx_conf_dump in nginx's src/core/nginx.c).
const marker = "# configuration file "

// Read takes what `nginx -T` writes to its standard output.
func Read(dump []byte, g Generated) (*Site, error) {
	main, files := split(dump)
	if main == "" {
		return nil, fmt.Errorf("%w: it has no line %q", ErrDump, marker+"PATH:")
	}
	open := func(path string) (io.ReadCloser, error) {
		content, ok := files[filepath.Clean(path)]
		if !ok {
			return nil, fmt.Errorf("%s is not in the output of nginx -T: %w", path, fs.ErrNotExist)
		}
		return io.NopCloser(bytes.NewReader(content)), nil
	}
	glob := func(pattern string) (found []string, err error) {
		for path := range files {
			if ok, err := filepath.Match(filepath.Clean(pattern), path); err != nil {
				return nil, fmt.Errorf("include %s: %w", pattern, err)
			} else if ok {
				found = append(found, path)
			}
		}
		slices.Sort(found)
		return found, nil
	}
	parsed, err := crossplane.Parse(main, &crossplane.ParseOptions{
		Open: open, Glob: glob, SkipDirectiveContextCheck: true, SkipDirectiveArgsCheck: true, // nginx itself has accepted it
		LexOptions: crossplane.LexOptions{Lexers: []crossplane.RegisterLexer{(&crossplane.Lua{}).RegisterLexer()}},
	})
	if err != nil {
		return nil, fmt.Errorf("read the configuration of nginx: %w", err)
	}
	if len(parsed.Errors) > 0 {
		return nil, fmt.Errorf("read the configuration of nginx: %w", parsed.Errors[0].Error)
	}
	s := &Site{root: &block{file: main, line: 1}, generated: g, maps: map[string][]*block{}}
	s.root.body = s.expand(parsed, 0, parsed.Config[0].Parsed, s.root)
	for m := range s.root.all("map") {
		if len(m.args) == 2 {
			s.maps[m.args[1]] = append(s.maps[m.args[1]], m)
		}
	}
	return s, nil
}

// split cuts the output at its markers. The first file is the one that includes the others.
func split(dump []byte) (main string, files map[string][]byte) {
	files = map[string][]byte{}
	var path string
	for line := range bytes.Lines(dump) {
		if name, ok := bytes.CutPrefix(line, []byte(marker)); ok {
			if name, ok := bytes.CutSuffix(bytes.TrimRight(name, "\r\n"), []byte(":")); ok {
				path = filepath.Clean(string(name))
				files[path] = []byte{}
				if main == "" {
					main = path
				}
				continue
			}
		}
		if path != "" {
			files[path] = append(files[path], line...)
		}
	}
	return main, files
}

// expand puts what is included in the place of the include. Of our own files only the include itself is kept.
func (s *Site) expand(p *crossplane.Payload, file int, list crossplane.Directives, in *block) (body []*block) {
	for _, d := range list {
		b := &block{name: d.Directive, args: d.Args, file: p.Config[file].File, line: d.Line, in: in}
		if d.Directive != "include" {
			b.body = s.expand(p, file, d.Block, b)
			body = append(body, b)
			continue
		}
		for _, i := range d.Includes {
			if path := p.Config[i].File; s.generated.has(path) {
				body = append(body, &block{name: b.name, args: []string{path}, file: b.file, line: b.line, in: in})
				continue
			}
			body = append(body, s.expand(p, i, p.Config[i].Parsed, in)...)
		}
	}
	return body
}

// has tells whether a file is one of ours, by its folder or, where that is reached through a link, by its name.
func (g Generated) has(path string) bool {
	return filepath.Dir(path) == g.Directory || slices.Contains([]string{g.HTTP, g.Server, g.Location}, filepath.Base(path))
}

func (s *Site) includes(b *block, name string) bool {
	return slices.ContainsFunc(b.body, func(c *block) bool { return c.name == "include" && filepath.Base(c.arg(0)) == name }) // no other include is left
}

// line is the include that a site has to write for one of our files.
func (g Generated) line(name string) string {
	return "include " + filepath.Join(g.Directory, name) + ";"
}

// all yields the directives of a name below a block, at any depth.
func (b *block) all(name string) func(yield func(*block) bool) {
	return func(yield func(*block) bool) { b.walk(name, yield) }
}

func (b *block) walk(name string, yield func(*block) bool) bool {
	for _, c := range b.body {
		if c.name == name && !yield(c) || !c.walk(name, yield) {
			return false
		}
	}
	return true
}

// has yields the directives of a name in the block itself.
func (b *block) has(name string) (found []*block) {
	for _, c := range b.body {
		if c.name == name {
			found = append(found, c)
		}
	}
	return found
}

// inherited is the directive of a name that is in force in the block: its own or that of the nearest block around it.
func (b *block) inherited(name string) *block {
	for ; b != nil; b = b.in {
		if own := b.has(name); len(own) > 0 {
			return own[len(own)-1]
		}
	}
	return nil
}

func (b *block) arg(i int) string {
	if i < len(b.args) {
		return b.args[i]
	}
	return ""
}

// called is how a block is named to people.
func (b *block) called() string { return strings.Join(append([]string{b.name}, b.args...), " ") }

func (b *block) fault(what, cure string) Fault {
	return Fault{File: b.file, Line: b.line, What: what, Cure: cure}
}
