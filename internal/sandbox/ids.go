package sandbox

import (
	"crypto/sha512"
	"encoding/base64"
	"strings"
)

// lengthen gives a resource with the ids under which a vendor with long ids serves it, in its references too.
func lengthen(raw []byte) []byte {
	h, err := readHeader(raw)
	if err != nil {
		return raw // loading it will fail
	}
	if id := longID(h.typ, h.id); id != h.id {
		raw = set(raw, "id", quote(id))
	}
	return rewriteReferences(raw, func(ref string) (string, bool) {
		local := localReference(ref)
		typ, id, _ := strings.Cut(local, "/")
		long := longID(typ, id)
		if long == id {
			return "", false
		}
		at := strings.LastIndex(ref, local)
		return ref[:at] + typ + "/" + long + ref[at+len(local):], true
	})
}

// longID is the id under which a vendor with long ids serves a resource: a third of them are longer than the 64
// characters of R4 and differ by the case of letters.
func longID(typ, id string) string {
	if id == "" || hashOf(typ, id)%3 != 0 {
		return id
	}
	sum := sha512.Sum512([]byte(typ + "/" + id))
	tail := strings.ReplaceAll(base64.RawURLEncoding.EncodeToString(sum[:]), "_", ".")
	return id + "-" + tail[:max(40, 72-len(id))]
}

// servedID is the id under which a resource of the base data is served.
func (s *store) servedID(typ, id string) string {
	if s.longIDs {
		return longID(typ, id)
	}
	return id
}
