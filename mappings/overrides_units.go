package mappings

import (
	"encoding/json"
	"math/big"
	"regexp"
	"strconv"
	"strings"

	"github.com/cura-health/ehr-sync/internal/cura"
)

const (
	systemUCUM    = "http://unitsofmeasure.org"
	systemUCUMOID = "urn:oid:2.16.840.1.113883.6.8"
)

// conversion leads from a unit to the one that is meant. Its factor and offset are decimals, so that a result always ends.
type conversion struct {
	// to is a UCUM code.
	to string
	// factor is above 0, so that a comparator keeps its direction; nil where the unit is only written in another way.
	factor *big.Rat
	offset *big.Rat
	// places is how many digits after the point the longer of both has.
	places int
}

// conversions are those that hold for one code, by the unit that they lead from: its own go before those for any code.
type conversions struct{ own, ofAny map[string]conversion }

// unitsOf gives the conversions for what a code names: its first coding that has any of its own decides.
func (o *Overrides) unitsOf(code cura.Concept) conversions {
	out := conversions{ofAny: o.units[codeKey{}]}
	for _, c := range code.Codings {
		if own, ok := o.units[keyOf(c)]; ok && c.Code != "" {
			out.own = own
			break
		}
	}
	return out
}

func (c conversions) from(unit string) (conversion, bool) {
	if by, ok := c.own[unit]; ok {
		return by, true
	}
	by, ok := c.ofAny[unit]
	return by, ok
}

func (o *Overrides) convertObservation(m *mapper, out *cura.LabObservation) {
	measure{m, "", o.unitsOf(out.Code)}.convert(out.Value, out.ReferenceRanges)
	for i := range out.Components {
		c := &out.Components[i]
		measure{m, at("component", i) + ".", o.unitsOf(c.Code)}.convert(c.Value, c.ReferenceRanges)
	}
}

// measure is an Observation or one of its components while its units are converted.
type measure struct {
	m *mapper
	// path is put before the names of its elements.
	path  string
	units conversions
}

// convert converts a value and its reference ranges. The ranges follow the value: where that stays as it is, they do.
func (m measure) convert(value *cura.ObservationValue, ranges []cura.ReferenceRange) {
	if len(m.units.own)+len(m.units.ofAny) == 0 {
		return
	}
	var by *conversion
	unit := ""
	if value != nil {
		if by, unit = m.value(value); by == nil {
			return
		}
	}
	for i := range ranges {
		r, element := &ranges[i], at("referenceRange", i)
		byRange, rangeUnit := m.pair(element+".low", r.Low, element+".high", r.High, by)
		if rangeUnit == "" {
			byRange, rangeUnit = by, unit
		}
		// Numbers in a text can't be converted: it says what unit they are in.
		if byRange != nil && byRange.factor != nil && r.Text != "" && !strings.Contains(r.Text, rangeUnit) {
			r.Text += " (" + rangeUnit + ")"
		}
	}
}

// value converts what a value holds. It gives the conversion and the unit that was there before; nil where nothing led from it.
func (m measure) value(v *cura.ObservationValue) (by *conversion, unit string) {
	switch {
	case v.Quantity != nil:
		by, unit = m.units.find(v.Quantity), unitOf(v.Quantity)
		m.to("valueQuantity", v.Quantity, by)
		return by, unit
	case v.Range != nil:
		return m.pair("valueRange.low", v.Range.Low, "valueRange.high", v.Range.High, nil)
	case v.Ratio != nil:
		m.to("valueRatio.numerator", v.Ratio.Numerator, m.units.find(v.Ratio.Numerator))
		m.to("valueRatio.denominator", v.Ratio.Denominator, m.units.find(v.Ratio.Denominator))
	}
	return nil, ""
}

// pair converts both ends of a range. An end without a unit has the other's, and where neither has one, the unit that otherwise
// leads from. It gives the conversion of an end, and that end's unit before.
func (m measure) pair(lowPath string, low *cura.Quantity, highPath string, high *cura.Quantity, otherwise *conversion) (by *conversion, unit string) {
	byLow, byHigh := m.units.find(low), m.units.find(high)
	unitLow, unitHigh := unitOf(low), unitOf(high)
	if unitLow == "" {
		if byLow = byHigh; unitHigh == "" {
			byLow = otherwise
		}
	}
	if unitHigh == "" {
		byHigh = byLow
	}
	m.to(lowPath, low, byLow)
	m.to(highPath, high, byHigh)
	if byLow != nil {
		return byLow, unitLow
	}
	return byHigh, unitHigh
}

// find gives the conversion that leads from a quantity's unit; nil where there is none. A UCUM code says what the unit is, whatever
// stands beside it for people to read.
func (c conversions) find(q *cura.Quantity) *conversion {
	if q == nil || q.Value == "" {
		return nil
	}
	by, ok := c.from(q.Code)
	if !ok && !isUCUM(q) {
		by, ok = c.from(strings.TrimSpace(q.Unit))
	}
	if !ok {
		return nil
	}
	return &by
}

func isUCUM(q *cura.Quantity) bool {
	return q.Code != "" && (q.System == systemUCUM || q.System == systemUCUMOID)
}

// unitOf gives a quantity's unit as a person reads it; empty where it has none.
func unitOf(q *cura.Quantity) string {
	switch {
	case q == nil:
		return ""
	case strings.TrimSpace(q.Unit) != "":
		return strings.TrimSpace(q.Unit)
	}
	return q.Code
}

// to converts a quantity, where there is a conversion for it. The comparator stays.
func (m measure) to(element string, q *cura.Quantity, by *conversion) {
	if q == nil || q.Value == "" || by == nil {
		return
	}
	if by.factor != nil {
		value, ok := by.of(q.Value)
		if !ok {
			m.m.reject(m.m.path(m.path+element), "has more digits than can be converted")
			return
		}
		q.Value = value
	}
	q.Unit, q.System, q.Code = by.to, systemUCUM, by.to
}

// decimal is a JSON number in its parts: the digits, those of the fraction, the exponent.
var decimal = regexp.MustCompile(`^-?([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?$`)

// maxDigits bounds the digits and the exponent of what is converted: a number of few characters may have a billion digits.
const maxDigits = 40

// of converts a value. The result is exact and never rounded; it has at least as many significant digits as the value, so that
// 5.40 mg% is 54.0 mg/dL. ok is false for a value that has too many.
func (c conversion) of(value json.Number) (result json.Number, ok bool) {
	parts := decimal.FindStringSubmatch(value.String())
	if len(parts) != 4 || len(parts[1])+len(parts[2]) > maxDigits {
		return "", false
	}
	exponent := 0
	if parts[3] != "" {
		var err error
		if exponent, err = strconv.Atoi(parts[3]); err != nil || max(exponent, -exponent) > maxDigits {
			return "", false
		}
	}
	exact, ok := new(big.Rat).SetString(value.String())
	if !ok {
		return "", false
	}
	exact.Mul(exact, c.factor)
	exact.Add(exact, c.offset)
	// The product of two decimals has no more places than both together.
	whole, fraction, _ := strings.Cut(exact.FloatString(max(len(parts[2])-exponent+c.places, c.places)), ".")
	for least := significant(parts[1], parts[2]); ; {
		has := significant(whole, fraction)
		shorter, endsIn0 := strings.CutSuffix(fraction, "0")
		switch {
		case has < least:
			fraction += "0"
		case has > least && endsIn0:
			fraction = shorter
		case fraction == "":
			return json.Number(whole), true
		default:
			return json.Number(whole + "." + fraction), true
		}
	}
}

// significant counts the digits of a decimal from the first that isn't 0; of a zero, all of them.
func significant(whole, fraction string) int {
	digits := strings.TrimPrefix(whole, "-") + fraction
	if trimmed := strings.TrimLeft(digits, "0"); trimmed != "" {
		return len(trimmed)
	}
	return len(digits)
}
