package journal

// Change is something that acknowledged writes touched, to be brought over as it is now. Applying the present state instead of
// the recorded one makes a delta idempotent and independent of the order in which edges are read.
type Change struct {
	Kind       Kind   `json:"kind"`
	Repository string `json:"repository"`
	// Reference is the tag or digest of a manifest, or the digest of a blob that an upload committed.
	Reference string `json:"reference"`
	// Deleted says that the last write was a delete.
	Deleted bool `json:"deleted,omitempty"`
}

// Changes folds writes into what they touched, in the order in which each thing was touched last.
type Changes struct {
	order []Change
	index map[Change]int // by change without Deleted
	// Writes counts the acknowledged writes that were folded in.
	Writes int
}

// Add folds in what a write touched. A write whose outcome is unknown may be added like any other, since what it names is only looked at.
func (c *Changes) Add(t Target, method string) {
	change := Change{Kind: t.Kind, Repository: t.Repository, Reference: t.Reference, Deleted: method == "DELETE"}
	switch t.Kind {
	case Upload:
		if t.Commits == "" {
			return // a session that was opened, continued or given up refers to nothing yet
		}
		change = Change{Kind: Blob, Repository: t.Repository, Reference: t.Commits}
	case Blob:
		return // deletes of blobs are never followed: promise 9
	}
	key := change
	key.Deleted = false
	if c.index == nil {
		c.index = make(map[Change]int)
	}
	if at, ok := c.index[key]; ok {
		c.order[at].Reference = "" // superseded
	}
	c.index[key] = len(c.order)
	c.order = append(c.order, change)
	c.Writes++
}

// Len returns how many distinct things were touched.
func (c *Changes) Len() int { return len(c.index) }

// List returns the changes, blobs before the manifests that may need them.
func (c *Changes) List() []Change {
	var blobs, manifests []Change
	for _, change := range c.order {
		switch {
		case change.Reference == "":
		case change.Kind == Blob:
			blobs = append(blobs, change)
		default:
			manifests = append(manifests, change)
		}
	}
	return append(blobs, manifests...)
}
