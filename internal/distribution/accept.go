package distribution

import (
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/types"
)

// artifactManifest is the type of a manifest that OCI had for a while
// (https://github.com/opencontainers/image-spec/blob/v1.1.0-rc2/artifact.md).
const artifactManifest types.MediaType = "application/vnd.oci.artifact.manifest.v1+json"

// Accept names every manifest type that clients know. A registry may convert to, or hide, what is not named: Distribution turns a
// schema 2 manifest into schema 1 for a client that does not ask for schema 2.
var Accept = strings.Join([]string{
	string(types.OCIImageIndex), string(types.OCIManifestSchema1), string(types.DockerManifestList), string(types.DockerManifestSchema2),
	string(artifactManifest), string(types.DockerManifestSchema1Signed), string(types.DockerManifestSchema1), "*/*",
}, ", ")
