package workflows

import (
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"

	"transship/internal/audit"
	"transship/internal/distribution"
)

func TestTheDetailsOfAnAuditAreReadableInTheTemporalUI(t *testing.T) {
	d := digest.FromString("a layer")
	r := AuditResult{Backend: "old", Shards: 1, Done: 1, Found: 2, Findings: []audit.Finding{
		{Category: audit.BlobCorrupt, Path: distribution.BlobKey(d), Repository: "restricted/a", Tags: strings.Split("v0,v1,v2,v3,v4,v5,v6", ","), Detail: "its bytes | do not hash\nto its name"},
		{Category: audit.LinkEmpty, Path: "repositories/restricted/a/_manifests/tags/v1/current/link", Repository: "restricted/a", Tags: []string{"v1"}, Detail: "the link has no bytes", Healed: true},
	}}
	details := r.details()
	assert.Contains(t, details, "| blob-corrupt | blobs/sha256/"+d.Encoded()[:2]+"/"+d.Encoded()[:12]+"…/data | v0, v1, v2, v3 and 3 more | its bytes \\| do not hash to its name |  |\n")
	assert.Contains(t, details, "| link-empty | restricted/a/_manifests/tags/v1/current/link | v1 | the link has no bytes | healed |\n")
}
