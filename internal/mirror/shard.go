package mirror

import (
	"context"
	"fmt"
	"strings"

	"transship/internal/distribution"
	"transship/internal/objectstore"
)

// Shard is a range of keys that holds whole repositories: what one activity works on.
type Shard struct {
	// Prefix of the repository names; empty is all repositories.
	Prefix string `json:"prefix"`
	// After and Before bound the keys, both exclusive; empty is no bound.
	After  string `json:"after,omitempty"`
	Before string `json:"before,omitempty"`
	// Repositories is how many there were when the shards were made.
	Repositories int `json:"repositories,omitempty"`
	// First names one of them, for people.
	First string `json:"first,omitempty"`
}

func (s Shard) String() string {
	if s.Repositories > 1 {
		return fmt.Sprintf("%s and %d more", s.First, s.Repositories-1)
	}
	return s.First
}

// Listing lists the keys of a shard.
func (s Shard) Listing() objectstore.ListOptions {
	return objectstore.ListOptions{Prefix: distribution.Under(s.Prefix), After: s.After, Before: s.Before}
}

// scan is how many keys are looked at before the next repository is jumped to.
const scan = 1000

// Repositories calls each with the names of the repositories of a prefix, in the order of their keys, which is not that of their names: "a-b" comes before "a".
// It costs a request for each repository, or for each page of a listing, whichever is less.
func Repositories(ctx context.Context, store objectstore.Store, prefix string, each func(name string) error) error {
	o := objectstore.ListOptions{Prefix: distribution.Under(prefix), Limit: scan}
	last := ""
	for {
		seen := 0
		for object, err := range store.List(ctx, o) {
			if err != nil {
				return fmt.Errorf("list the repositories of %s: %w", store, err)
			}
			seen++
			o.After = object.Key
			if name := distribution.Parse(object.Key).Repository; name != "" && name != last {
				last = strings.Clone(name)
				if err := each(last); err != nil {
					return err
				}
			}
		}
		if seen < scan {
			return nil
		}
		if last != "" {
			o.After = max(o.After, distribution.Past(last))
		}
	}
}

// Shards divides a prefix into at most n shards with about as many repositories each. Together they have every key below the prefix, those of repositories that
// come into being later as well.
func Shards(ctx context.Context, store objectstore.Store, prefix string, n int) ([]Shard, error) {
	var names []string
	err := Repositories(ctx, store, prefix, func(name string) error {
		names = append(names, name)
		return nil
	})
	if err != nil || len(names) == 0 {
		return nil, err
	}
	size := (len(names) + n - 1) / max(1, n)
	var shards []Shard
	for at := 0; at < len(names); at += size {
		s := Shard{Prefix: prefix, Repositories: min(size, len(names)-at), First: names[at]}
		if at > 0 {
			s.After = distribution.Past(names[at-1])
		}
		if at+size < len(names) {
			s.Before = distribution.Past(names[at+size-1])
		}
		shards = append(shards, s)
	}
	return shards, nil
}

// Only is the shard of one repository.
func Only(prefix, repository string) Shard {
	return Shard{Prefix: prefix, After: distribution.Of(repository), Before: distribution.Past(repository), Repositories: 1, First: repository}
}
