"""The lattice: ideal classes of Q(sqrt(-1011)) as a rule for spreading blocks over twelve arenas.

Words: a *form* (a, b, c) stands for ax^2 + bxy + cy^2 with discriminant b^2 - 4ac = -1011; forms that are equivalent
under SL2(Z) make one *class*, and the twelve classes make a cyclic group under composition. The *generator* is the
class of the prime form over 5, and a class is known by its *exponent* 0..11 of that. A *channel* is one of the first
seven primes; successive blocks of a channel step through the arenas by the exponent of the channel's class, so they
visit as many arenas as the class has order: 2 stays in one, 3 alternates two, 7 cycles three, 11 four, 13 six, 5 and
17 all twelve.

Everything below is derived from the discriminant when the module is imported; no table is typed in. The rule needs
of number theory only that exponents modulo 12 have every order that divides 12: the field gives it a canonical,
checkable choice.

Threads: immutable. Cost: about a millisecond at import; a class of an exponent vector is seven multiplications.
"""

from collections.abc import Mapping
from math import gcd
from types import MappingProxyType
from typing import NamedTuple

__all__ = [
    "CLASS_COUNT",
    "DISCRIMINANT",
    "EXPONENTS",
    "GENERATOR",
    "PRIMES",
    "Form",
    "class_of_exponents",
    "class_of_form",
    "compose",
    "interleaving",
    "kronecker",
    "order",
    "prime_form",
    "reduced_forms",
]

#: Of the 206 imaginary quadratic fields with twelve classes, the only one whose first seven primes fall into seven
#: classes that differ up to inversion.
DISCRIMINANT = -1011
PRIMES = (2, 3, 5, 7, 11, 13, 17)
GENERATOR_PRIME = 5


class Form(NamedTuple):
    """The positive definite binary quadratic form ax^2 + bxy + cy^2."""

    a: int
    b: int
    c: int

    @property
    def discriminant(self) -> int:
        """b^2 - 4ac.

        >>> Form(5, 3, 51).discriminant
        -1011
        """
        return self.b * self.b - 4 * self.a * self.c

    def reduced(self) -> "Form":
        """The one form of the same class with -a < b <= a <= c, and b >= 0 where a = c.

        Raises ValueError when the form is not positive definite. Cost: O(log a) steps.

        >>> Form(17, 3, 15).reduced()
        Form(a=15, b=-3, c=17)
        """
        if self.discriminant >= 0 or self.a <= 0:
            raise ValueError(f"only positive definite forms can be reduced, not {self}")
        a, b, c = self
        while True:
            shift = (a - b) // (2 * a)
            b, c = b + 2 * a * shift, a * shift * shift + b * shift + c
            if a < c or (a == c and b >= 0):
                return Form(a, b, c)
            a, b, c = c, -b, a

    def inverse(self) -> "Form":
        """The reduced form of the inverse class.

        >>> Form(5, 3, 51).inverse()
        Form(a=5, b=-3, c=51)
        """
        return Form(self.a, -self.b, self.c).reduced()


def extended_gcd(x: int, y: int) -> tuple[int, int, int]:
    """(g, u, v) with g = gcd(x, y) = ux + vy."""
    u, v, next_u, next_v = 1, 0, 0, 1
    while y:
        quotient, remainder = divmod(x, y)
        x, y = y, remainder
        u, next_u = next_u, u - quotient * next_u
        v, next_v = next_v, v - quotient * next_v
    return (x, u, v) if x >= 0 else (-x, -u, -v)


def compose(one: Form, other: Form) -> Form:
    """The reduced form of the product of two classes (Gauss composition).

    Parameters: two primitive forms of one discriminant. Raises ValueError when the discriminants differ.
    Cost: two extended Euclidean algorithms and a reduction.

    >>> compose(Form(5, 3, 51), Form(5, 3, 51))
    Form(a=13, b=-9, c=21)
    """
    if one.discriminant != other.discriminant:
        raise ValueError(f"discriminants {one.discriminant} and {other.discriminant} differ: no composition")
    a, b, _ = one
    c, d, _ = other
    half_sum = (b + d) // 2
    common, u, v = extended_gcd(a, c)
    divisor, w, t = extended_gcd(common, half_sum)
    # divisor = u*w*a + v*w*c + t*half_sum, and the middle coefficient is fixed modulo twice the product.
    product = a * c // (divisor * divisor)
    numerator = u * w * a * d + v * w * c * b + t * (b * d + one.discriminant) // 2
    middle = numerator // divisor % (2 * product)
    return Form(product, middle, (middle * middle - one.discriminant) // (4 * product)).reduced()


def reduced_forms(discriminant: int) -> list[Form]:
    """All reduced primitive forms of a negative discriminant, in order: one for each class.

    Raises ValueError for what is no negative discriminant. Cost: O(-discriminant).

    >>> len(reduced_forms(-1011)), len(reduced_forms(-163))
    (12, 1)
    """
    if discriminant >= 0 or discriminant % 4 not in (0, 1):
        raise ValueError(f"a negative discriminant is 0 or 1 modulo 4, not {discriminant}")
    forms = []
    a = 1
    while 3 * a * a <= -discriminant:
        for b in range(-a + 1, a + 1):
            c, rest = divmod(b * b - discriminant, 4 * a)
            if rest == 0 and (a < c or (a == c and b >= 0)) and gcd(a, b, c) == 1:
                forms.append(Form(a, b, c))
        a += 1
    return forms


def kronecker(discriminant: int, prime: int) -> int:
    """How a prime behaves in the field: 1 splits, 0 ramifies, -1 stays inert.

    >>> [kronecker(-1011, prime) for prime in (2, 3, 5)]
    [-1, 0, 1]
    """
    if prime == 2:
        return 0 if discriminant % 2 == 0 else 1 if discriminant % 8 == 1 else -1
    residue = pow(discriminant, (prime - 1) // 2, prime)
    return -1 if residue == prime - 1 else residue


def prime_form(discriminant: int, prime: int) -> Form:
    """The form (p, b, c) with the smallest b >= 0 of a prime ideal over p; the principal form over an inert prime.

    An inert prime generates a principal ideal of norm p^2, so its class is the neutral one.

    >>> prime_form(-1011, 7), prime_form(-1011, 2)
    (Form(a=7, b=5, c=37), Form(a=1, b=1, c=253))
    """
    wanted = 1 if kronecker(discriminant, prime) == -1 else prime
    b = next(b for b in range(2 * wanted) if (b * b - discriminant) % (4 * wanted) == 0)
    return Form(wanted, b, (b * b - discriminant) // (4 * wanted))


def powers_of(generator: Form) -> list[Form]:
    """The distinct powers of a class, from the neutral one on, as reduced forms."""
    neutral = prime_form(generator.discriminant, 2) if generator.discriminant % 8 == 5 else None
    powers = [compose(generator, generator.inverse())]
    assert neutral is None or powers[0] == neutral
    while (power := compose(powers[-1], generator)) != powers[0]:
        powers.append(power)
    return powers


GENERATOR = prime_form(DISCRIMINANT, GENERATOR_PRIME)
_POWERS = powers_of(GENERATOR)
_EXPONENT_OF = {form: exponent for exponent, form in enumerate(_POWERS)}
#: How many classes there are, and so how many arenas.
CLASS_COUNT = len(_POWERS)
#: prime -> exponent of its class: what a channel steps by.
EXPONENTS: Mapping[int, int] = MappingProxyType(
    {prime: _EXPONENT_OF[prime_form(DISCRIMINANT, prime).reduced()] for prime in PRIMES}
)


def class_of_form(form: Form) -> int:
    """The exponent 0..11 of a form's class. Raises ValueError for another discriminant.

    >>> class_of_form(Form(3, 3, 85))
    6
    """
    if form.discriminant != DISCRIMINANT:
        raise ValueError(f"the form {form} has discriminant {form.discriminant}, not {DISCRIMINANT}")
    return _EXPONENT_OF[form.reduced()]


def class_of_exponents(exponents: Mapping[int, int]) -> int:
    """The class of a product of powers of the seven prime ideals: the homomorphism from Z^7 onto Z/12.

    Parameters: exponents (prime -> power, negative ones too; primes left out have power 0).
    Raises KeyError for a prime that is no channel.

    >>> class_of_exponents({5: 2, 7: 1, 3: -1})
    0
    """
    return sum(power * EXPONENTS[prime] for prime, power in exponents.items()) % CLASS_COUNT


def order(channel: int) -> int:
    """How many arenas the blocks of a channel visit. Raises ValueError for what is no channel.

    >>> [order(channel) for channel in PRIMES]
    [1, 2, 12, 3, 4, 6, 12]
    """
    if channel not in EXPONENTS:
        raise ValueError(f"a channel is one of the primes {PRIMES}, not {channel!r}")
    return CLASS_COUNT // gcd(CLASS_COUNT, EXPONENTS[channel])


def interleaving(channel: int, start: int = 0) -> tuple[int, ...]:
    """The classes that successive blocks of a channel go to, for one round.

    Parameters: channel (a prime of PRIMES), start (the class of the first block).

    >>> interleaving(11, start=1)
    (1, 4, 7, 10)
    """
    return tuple((start + step * EXPONENTS[channel]) % CLASS_COUNT for step in range(order(channel)))
