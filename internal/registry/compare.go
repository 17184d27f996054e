package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
)

// Difference is something in which the target is not what the source is.
type Difference struct {
	Repository string `json:"repository"`
	Tag        string `json:"tag,omitempty"`
	// Kind is one of the Different… constants, or the Kind of a Problem at the target.
	Kind string `json:"kind"`
	// Want and Have are digests, where there are any.
	Want   string `json:"want,omitempty"`
	Have   string `json:"have,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// Kinds of differences between tags.
const (
	// DifferentTag: the tag refers to another digest at the target.
	DifferentTag = "tag"
	// MissingTag: the target does not have the tag.
	MissingTag = "missing-tag"
	// ExtraTag: only the target has the tag.
	ExtraTag = "extra"
)

// CompareOptions say how closely to look.
type CompareOptions struct {
	// Deep reads and hashes every byte at the target; otherwise presence and sizes are checked.
	Deep bool
	// Jobs is how many requests are under way at once; 0 means 8.
	Jobs int
	// Observe is told the counts after each finished thing, and every second. Calls do not overlap.
	Observe func(Check)
	// AllowExtra: tags that only the target has are no differences.
	AllowExtra bool
	// Skip holds tags that are known to be broken at the source; they are not compared.
	Skip map[string]bool
	// Checked is shared among the deep checks of one target; nil means by itself.
	Checked *Checked
}

// Compare looks whether the target has every tag of the source's repository with the same digest, with all that it needs and, by the
// source's API, all that refers to it. The source may be in use: a tag that moves meanwhile is looked at again before it is called a
// difference. An error means that the comparison could not be finished.
func Compare(ctx context.Context, from, to *Registry, repository string, opt CompareOptions) (Check, error) {
	w := newWalker(to, repository, opt.Deep, opt.Jobs, opt.Checked, opt.Observe)
	defer w.watched()()
	c := &comparison{walker: w, from: from, opt: opt}
	wanted, err := from.Tags(ctx, repository)
	if err != nil {
		return w.check(), err
	}
	have, err := to.Tags(ctx, repository)
	if err != nil {
		return w.check(), err
	}
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(cap(w.slots))
	for _, tag := range wanted {
		if !opt.Skip[tag] {
			group.Go(func() error { return c.tag(inner, tag) })
		}
	}
	for _, tag := range have {
		if _, known := slices.BinarySearch(wanted, tag); !known && !opt.AllowExtra && !opt.Skip[tag] {
			group.Go(func() error { return c.extra(inner, tag) })
		}
	}
	err = group.Wait()
	if ctx.Err() != nil {
		err = fmt.Errorf("comparing %s: %w", repository, context.Cause(ctx))
	}
	check := w.check()
	slices.SortFunc(c.differences, func(a, b Difference) int {
		return strings.Compare(a.Tag+"\x00"+a.Want+a.Kind, b.Tag+"\x00"+b.Want+b.Kind)
	})
	check.Differences = c.differences
	return check, err
}

type comparison struct {
	*walker
	from *Registry
	opt  CompareOptions

	mu          sync.Mutex
	differences []Difference
}

// looks is how often a tag that keeps moving is looked at.
const looks = 4

// tag compares one tag.
func (c *comparison) tag(ctx context.Context, tag string) error {
	var last v1.Hash
	for look := 1; ; look++ {
		want, there, err := c.resolve(ctx, c.from, tag)
		if err != nil {
			return err
		}
		if !there {
			return nil // deleted meanwhile; what remains at the target is the next look's extra
		}
		have, ok, err := c.resolve(ctx, c.reg, tag)
		if err != nil {
			return err
		}
		if ok && have.Digest == want.Digest {
			c.tags.Add(1)
			return c.closure(ctx, tag, want)
		}
		// Twice the same at the source and not at the target: not a tag that moved between two requests.
		if last != want.Digest && look < looks {
			last = want.Digest
			if !sleep(ctx, 50*time.Millisecond*time.Duration(look)) {
				return context.Cause(ctx)
			}
			continue
		}
		c.tags.Add(1)
		d := Difference{Tag: tag, Kind: MissingTag, Want: want.Digest.String()}
		if ok {
			d.Kind, d.Have = DifferentTag, have.Digest.String()
		}
		c.add(d)
		return nil
	}
}

// closure checks at the target what the tag needs, and what refers to it.
func (c *comparison) closure(ctx context.Context, tag string, d v1.Descriptor) error {
	bad, err := c.manifest(ctx, d)
	if err != nil {
		return fmt.Errorf("comparing %s: %w", named(c.repository, tag), err)
	}
	more, err := c.referrers(ctx, c.from, d)
	if err != nil {
		return fmt.Errorf("comparing the referrers of %s: %w", named(c.repository, tag), err)
	}
	for _, p := range append(bad, more...) {
		c.add(Difference{Tag: tag, Kind: string(p.Kind), Want: p.Digest, Detail: p.Error()})
	}
	return nil
}

// extra looks once more at a tag that only the target seemed to have.
func (c *comparison) extra(ctx context.Context, tag string) error {
	if _, there, err := c.resolve(ctx, c.from, tag); err != nil || there {
		if err != nil {
			return err
		}
		return c.tag(ctx, tag)
	}
	have, there, err := c.resolve(ctx, c.reg, tag)
	if err != nil || !there {
		return err
	}
	if subject, ok := fallbackSubject(tag); ok {
		// Where the source has the referrers API and the target does not, the Copier wrote the list that the API gives there.
		var list []v1.Descriptor
		err := c.within(ctx, func() (err error) {
			list, _, err = c.from.referrersByAPI(ctx, c.repository, subject)
			return err
		})
		if err != nil || len(list) > 0 {
			return err
		}
	}
	c.add(Difference{Tag: tag, Kind: ExtraTag, Have: have.Digest.String()})
	return nil
}

func (c *comparison) resolve(ctx context.Context, r *Registry, tag string) (d v1.Descriptor, there bool, err error) {
	err = c.within(ctx, func() (err error) {
		d, err = r.Resolve(ctx, c.repository, tag)
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return d, false, nil
	}
	return d, err == nil, err
}

func (c *comparison) add(d Difference) {
	d.Repository = c.repository
	c.mu.Lock()
	defer c.mu.Unlock()
	c.differences = append(c.differences, d)
}
