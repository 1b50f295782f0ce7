// Package fhir reads FHIR R4 JSON: Bundles as a stream, the head of a resource, its content hash, and whether it is
// valid. It does no IO of its own. Error texts name element paths and kinds of fault, never a value of a resource,
// because every value can be PHI.
package fhir

import (
	"errors"
	"strings"
)

// DefaultMaxResource is the size in bytes above which a resource isn't held in memory.
const DefaultMaxResource = 16 << 20

// MaxDepth is how many objects and arrays may lie within each other in one resource. R4 needs about twenty; the cap
// keeps a hostile resource from exhausting the stack.
const MaxDepth = 100

// Entry is one Bundle.entry (R4 §2.36): a resource with its head and its content hash.
type Entry struct {
	// Mode is Bundle.entry.search.mode: match, include or outcome; empty is to be taken as match.
	Mode string
	// FullURL is Bundle.entry.fullUrl. It holds the resource's id: PHI.
	FullURL string
	// Resource is the JSON of the resource exactly as received. It is nil when Oversize, and when the entry holds no
	// resource. It belongs to the receiver, who may keep it.
	Resource []byte
	// Oversize says that the resource has more bytes than the cap and was not kept.
	Oversize bool
	// Size is the number of bytes of the resource, also of an oversize one.
	Size int64
	// Type, ID, VersionID and LastUpdated are the head of the resource, see Head. For an oversize resource they are
	// what was found within the cap.
	Type, ID, VersionID, LastUpdated string
	// Hash is the content hash of the resource, see Hash. For an oversize resource, and for one that isn't well-formed
	// JSON, it is the SHA-256 of the bytes.
	Hash [32]byte
}

// Bundle is what a Bundle says about itself, known once its last byte is read.
type Bundle struct {
	// Type is Bundle.type, such as searchset.
	Type string
	// Total is Bundle.total; nil where it is missing. Servers give estimates: never count by it.
	Total *int
	// Links is Bundle.link, URL by relation. URLs hold PHI and are attacker-influenced: check the origin before following.
	Links map[string]string
	// Outcome is the whole body where the server answered with an OperationOutcome instead of a Bundle. Such an answer
	// is no empty page: check it before anything else.
	Outcome []byte
}

// ResourceHead is what identifies a version of a resource. VersionID and LastUpdated are often absent.
type ResourceHead struct {
	Type        string
	ID          string
	VersionID   string
	LastUpdated string
}

var (
	errMalformed = errors.New("not well-formed JSON")
	errTruncated = errors.New("the JSON ends too early")
	errTooDeep   = errors.New("nested too deep")
)

// Head finds resourceType, id, meta.versionId and meta.lastUpdated. It reads the top level of the resource only. The
// error says that the JSON is broken; what was found before the fault is returned with it. A member of the wrong kind is
// taken as absent.
func Head(raw []byte) (ResourceHead, error) {
	var h ResourceHead
	s := scanner{data: raw}
	err := s.object(func(key, value []byte) {
		switch string(key) {
		case "resourceType":
			h.Type = textOf(value)
		case "id":
			h.ID = textOf(value)
		case "meta":
			m := scanner{data: value}
			// A meta cut short by the cap of an oversize resource still gives what it has.
			_ = m.object(func(key, value []byte) {
				switch string(key) {
				case "versionId":
					h.VersionID = textOf(value)
				case "lastUpdated":
					h.LastUpdated = textOf(value)
				}
			})
		}
	})
	return h, err
}

// maxID is well over R4's 64 characters: Epic's ids can be longer (DOMAIN §3).
const maxID = 255

// IsID reports whether text is taken as a resource's logical id (R4 §2.24.0.1, id): letters, digits, "-" and ".", and the
// underscores that R4 doesn't allow and that do occur. None changes the path of a URL that it is put into: ids of dots alone
// are refused.
func IsID(text string) bool {
	for _, b := range []byte(text) {
		switch {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9', b == '-', b == '.', b == '_':
		default:
			return false
		}
	}
	return len(text) <= maxID && strings.Trim(text, ".") != ""
}

// textOf decodes a JSON string, and gives the empty string for anything else.
func textOf(value []byte) string {
	s := scanner{data: value}
	inner, escaped, err := s.str()
	if err != nil {
		return ""
	}
	return unescape(inner, escaped)
}
