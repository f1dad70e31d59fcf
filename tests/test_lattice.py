"""The class group of Q(sqrt(-1011)): reduction, composition, homomorphism, orders, interleaving; PARI as an oracle."""

import itertools
import random
import shutil
import subprocess
from math import gcd

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectral_alloc import lattice
from spectral_alloc.lattice import DISCRIMINANT, EXPONENTS, PRIMES, Form, class_of_form, compose, reduced_forms

FORMS = reduced_forms(DISCRIMINANT)
NEUTRAL = Form(1, 1, 253)
forms = st.sampled_from(FORMS)


def moved(form: Form, x: int, y: int) -> Form:
    """The form after the substitution with the matrices [[1, x], [0, 1]] and [[1, 0], [y, 1]]: the same class."""
    a, b, c = form
    b, c = b + 2 * a * x, a * x * x + b * x + c
    return Form(a + b * y + c * y * y, b + 2 * c * y, c)


def test_there_are_twelve_classes() -> None:
    """The field has class number 12, and the powers of the generator reach every reduced form."""
    assert len(FORMS) == lattice.CLASS_COUNT == 12
    assert sorted(class_of_form(form) for form in FORMS) == list(range(12))


def test_the_table_is_the_published_one() -> None:
    """Exponents and reduced forms are those that PARI 2.15 gives for the discriminant."""
    assert dict(EXPONENTS) == {2: 0, 3: 6, 5: 1, 7: 4, 11: 3, 13: 10, 17: 5}
    powers = "1,1,253 5,3,51 13,-9,21 11,1,23 7,5,37 15,-3,17 3,3,85 15,3,17 7,-5,37 11,-1,23 13,9,21 5,-3,51"
    for exponent, text in enumerate(powers.split()):
        assert class_of_form(Form(*map(int, text.split(",")))) == exponent


@given(forms, st.integers(-50, 50), st.integers(-50, 50))
def test_reduction_is_canonical(form: Form, x: int, y: int) -> None:
    """Every equivalent form reduces to the one reduced form, which is its own reduction."""
    assert form.reduced() == form
    assert moved(form, x, y).discriminant == DISCRIMINANT
    assert moved(form, x, y).reduced() == form


@given(forms, forms, forms)
def test_composition_is_an_abelian_group(one: Form, two: Form, three: Form) -> None:
    """Associative, commutative, with neutral element and inverses."""
    assert compose(one, two) == compose(two, one)
    assert compose(compose(one, two), three) == compose(one, compose(two, three))
    assert compose(one, NEUTRAL) == one
    assert compose(one, one.inverse()) == NEUTRAL


def test_the_class_is_a_homomorphism_on_all_pairs() -> None:
    """The exponent of a product is the sum of the exponents modulo 12, on all 144 pairs."""
    for one, two in itertools.product(FORMS, FORMS):
        assert class_of_form(compose(one, two)) == (class_of_form(one) + class_of_form(two)) % 12


@given(st.dictionaries(st.sampled_from(PRIMES), st.integers(-5, 5)))
def test_exponent_vectors_map_as_the_forms_compose(powers: dict[int, int]) -> None:
    """Composing the prime forms one by one gives the class that the seven multiplications give."""
    product = NEUTRAL
    for prime, power in powers.items():
        form = lattice.prime_form(DISCRIMINANT, prime).reduced()
        for _ in range(abs(power)):
            product = compose(product, form if power > 0 else form.inverse())
    assert class_of_form(product) == lattice.class_of_exponents(powers)


def test_a_product_of_forms_represents_products() -> None:
    """Composition means what Gauss meant: values of two forms multiply to a value of their product."""
    generator = random.Random(1)
    for one, two in itertools.product(FORMS, FORMS):
        x, y = generator.choice([(1, 0), (0, 1), (1, 1), (2, 1)]), generator.choice([(1, 0), (0, 1), (1, 1)])
        values = [f.a * u * u + f.b * u * v + f.c * v * v for f, (u, v) in ((one, x), (two, y))]
        if gcd(*values) != 1:
            continue
        assert is_represented(values[0] * values[1], compose(one, two))


def is_represented(number: int, form: Form) -> bool:
    """Whether ax^2 + bxy + cy^2 takes the value, by trying every x and y that could do."""
    a, b, c = form
    for y in range(int((4 * a * number / 1011) ** 0.5) + 2):
        square = b * b * y * y - 4 * a * (c * y * y - number)
        root = int(square**0.5 + 0.5) if square >= 0 else -1
        if root * root == square and ((-b * y + root) % (2 * a) == 0 or (-b * y - root) % (2 * a) == 0):
            return True
    return False


def test_two_is_inert_and_three_ramifies() -> None:
    """The first two channels are no split primes, as the documentation says openly."""
    assert [lattice.kronecker(DISCRIMINANT, prime) for prime in PRIMES] == [-1, 0, 1, 1, 1, 1, 1]


def test_the_orders_are_all_divisors_of_twelve() -> None:
    """The seven channels visit 1, 2, 12, 3, 4, 6 and 12 arenas, each equally often in a round."""
    assert [lattice.order(channel) for channel in PRIMES] == [1, 2, 12, 3, 4, 6, 12]
    for channel in PRIMES:
        for start in range(12):
            visited = lattice.interleaving(channel, start)
            assert len(set(visited)) == len(visited) == lattice.order(channel)
            assert visited[0] == start


def test_bad_input_is_named() -> None:
    """Indefinite forms, mixed discriminants, other discriminants and other channels are refused by name."""
    with pytest.raises(ValueError, match="positive definite"):
        Form(1, 5, 1).reduced()
    with pytest.raises(ValueError, match="differ"):
        compose(NEUTRAL, Form(1, 1, 41))
    with pytest.raises(ValueError, match="-163"):
        class_of_form(Form(1, 1, 41))
    with pytest.raises(ValueError, match="modulo 4"):
        reduced_forms(-2)
    with pytest.raises(ValueError, match="19"):
        lattice.order(19)
    with pytest.raises(KeyError):
        lattice.class_of_exponents({19: 1})


def pari(expression: str) -> str:
    """What PARI makes of an expression, by cypari2 or by gp; the test is skipped without both."""
    try:
        import cypari2
    except ImportError:
        program = shutil.which("gp")
        if program is None:
            pytest.skip("neither cypari2 nor gp is installed")
        command = [program, "-q", "-f"]
        done = subprocess.run(command, input=expression + "\n", capture_output=True, text=True, check=True)
        return done.stdout.strip()
    return str(cypari2.Pari()(expression))


def test_pari_agrees_on_the_group() -> None:
    """PARI's class group is cyclic of order 12, as ours is."""
    answer = pari("quadclassunit(-1011)").replace(" ", "")
    assert answer.startswith("[12,[12],")


def test_pari_agrees_on_every_product() -> None:
    """PARI composes all 144 pairs of forms as we do."""
    listed = ",".join(f"Qfb({a},{b},{c})" for a, b, c in FORMS)
    answer = pari(f"f=[{listed}];concat([[Vec(f[i]*f[j])|j<-[1..12]]|i<-[1..12]])")
    if answer.startswith("***"):
        pytest.skip("this PARI does not know the expression")
    numbers = [int(word) for word in answer.replace("[", " ").replace("]", " ").replace(",", " ").split()]
    expected = [number for one in FORMS for two in FORMS for number in compose(one, two)]
    assert numbers == expected
