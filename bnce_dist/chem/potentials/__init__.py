"""What gives the energy of a molecule: force fields as OpenMM has them, and GFN2-xTB."""
