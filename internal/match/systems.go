package match

import (
	"slices"
	"strings"
)

// numbering is a system of identifiers whose form is published, so that a value can be told to be nobody's.
type numbering struct {
	// systems are the URIs by which EHRs name it.
	systems []string
	// groups are the lengths of the parts that it is written in, with a blank or a dash between.
	groups []int
	// issued reports whether a value without separators, in capitals, can have been given to somebody.
	issued func(plain string) bool
}

// numberingOf gives what is known of a system (DOMAIN §6).
func numberingOf(system string) (numbering, bool) {
	switch system {
	case "https://fhir.nhs.uk/Id/nhs-number":
		return numbering{[]string{system}, []int{3, 3, 4}, issuedNHS}, true
	case ssnURI, ssnOID:
		return numbering{[]string{ssnURI, ssnOID}, []int{3, 2, 4}, issuedSSN}, true
	case "http://hl7.org/fhir/sid/us-mbi":
		return numbering{[]string{system}, []int{4, 3, 4}, issuedMBI}, true
	case "http://hl7.org/fhir/sid/us-npi":
		// It names who provides care. On a Patient it is somebody else's, and shared by all of theirs.
		return numbering{[]string{system}, []int{10}, func(string) bool { return false }}, true
	}
	return numbering{}, false
}

// The two names of the US social security number.
const (
	ssnURI = "http://hl7.org/fhir/sid/us-ssn"
	ssnOID = "urn:oid:2.16.840.1.113883.4.1"
)

// Systems are the URIs that name the same system of identifiers, system itself first.
func Systems(system string) []string {
	all := []string{system}
	if n, ok := numberingOf(system); ok {
		for _, other := range n.systems {
			if other != system {
				all = append(all, other)
			}
		}
	}
	return all
}

// Spellings are the values that name the same person as value does in system, the one without separators first. Of a system
// whose form isn't known that is value alone, whatever it looks like.
func Spellings(system, value string) []string {
	n, ok := numberingOf(system)
	if !ok {
		return []string{value}
	}
	plain, ok := n.plain(value)
	if !ok {
		return []string{value}
	}
	all := []string{plain}
	for _, spelling := range []string{n.grouped(plain, " "), n.grouped(plain, "-"), value} {
		if !slices.Contains(all, spelling) {
			all = append(all, spelling)
		}
	}
	return all
}

// valid reports whether value keeps to the form of its system, where that is known.
func valid(system, value string) bool {
	n, ok := numberingOf(system)
	if !ok {
		return true
	}
	plain, ok := n.plain(value)
	return ok && n.issued(plain)
}

// plain is value in capitals and without the blanks and dashes in its middle; false where it hasn't the system's length, or
// has anything but ASCII letters and digits.
func (n numbering) plain(value string) (string, bool) {
	if strings.Trim(value, " -") != value {
		return "", false
	}
	plain := strings.ToUpper(strings.Map(func(r rune) rune {
		if r == ' ' || r == '-' {
			return -1
		}
		return r
	}, value))
	length := 0
	for _, group := range n.groups {
		length += group
	}
	return plain, len(plain) == length && !strings.ContainsFunc(plain, func(r rune) bool { return !digit(r) && !capital(r) })
}

func (n numbering) grouped(plain, separator string) string {
	parts := make([]string, len(n.groups))
	for i, group := range n.groups {
		parts[i], plain = plain[:group], plain[group:]
	}
	return strings.Join(parts, separator)
}

func digit(r rune) bool { return '0' <= r && r <= '9' }

func capital(r rune) bool { return 'A' <= r && r <= 'Z' }

func digits(plain string) bool {
	return !strings.ContainsFunc(plain, func(r rune) bool { return !digit(r) })
}

// issuedNHS checks the last digit of an NHS number, modulus 11 (NHS Data Dictionary, NHS NUMBER). Where the check comes to 10
// the number is never issued. The range 999, kept for tests, passes: test systems are full of it.
func issuedNHS(plain string) bool {
	if !digits(plain) {
		return false
	}
	sum := 0
	for i := range 9 {
		sum += (10 - i) * int(plain[i]-'0')
	}
	check := (11 - sum%11) % 11
	return check == int(plain[9]-'0')
}

// issuedSSN leaves out what the Social Security Administration never gives: area 000, 666 and from 900 on (which holds the tax
// numbers, ITIN), group 00, serial 0000; and the numbers of advertisements and pamphlets that thousands took for their own.
func issuedSSN(plain string) bool {
	if !digits(plain) {
		return false
	}
	area, group, serial := plain[:3], plain[3:5], plain[5:]
	if area == "000" || area == "666" || area[0] == '9' || group == "00" || serial == "0000" {
		return false
	}
	return !slices.Contains([]string{"078051120", "219099999", "123456789"}, plain)
}

// issuedMBI checks the kind of each character of a Medicare beneficiary identifier: C is 1 to 9, N a digit, A a letter but for
// S, L, O, I, B and Z, E either (CMS, "Understanding the MBI format"). The number on the specimen card is nobody's.
func issuedMBI(plain string) bool {
	for i, kind := range "CAENAENAANN" {
		r := rune(plain[i])
		letter := capital(r) && !strings.ContainsRune("SLOIBZ", r)
		ok := map[rune]bool{'C': digit(r) && r != '0', 'N': digit(r), 'A': letter, 'E': digit(r) || letter}[kind]
		if !ok {
			return false
		}
	}
	return plain != "1EG4TE5MK72" && plain != "1EG4TE5MK73"
}
